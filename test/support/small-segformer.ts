/** Widths of a SegFormer that is evaluated in milliseconds. */
export const smallSegFormer = {
  embed_dims: [4, 8, 12, 16],
  depths: [1, 2, 1, 1],
  num_heads: [1, 2, 3, 4],
  sr_ratios: [8, 4, 2, 1],
  mlp_ratio: 2,
  drop_path_rate: 0.1,
  head_channels: 8,
  head_dropout: 0.1,
  nclass: 3,
} as const
