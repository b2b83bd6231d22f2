import type { DptConfig } from '#dist/models/dpt.js'

/** A narrow DINOv2 with a DPT head, of patches of 14 pixels and a position table of 4 x 4. */
export const smallDinoV2 = {
  dim: 12,
  heads: 2,
  depth: 5,
  taps: [0, 1, 3, 4],
  img_size: 56,
  patch: 14,
  mlp_ratio: 4,
  out_channels: [4, 5, 6, 8],
  features: 6,
  nclass: 3,
} satisfies DptConfig
