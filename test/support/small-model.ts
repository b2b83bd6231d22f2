/** Widths of a network that is evaluated in milliseconds. */
export const smallModel = {
  stem: [4, 4, 8],
  planes: [4, 4, 4, 8],
  blocks: [1, 1, 1, 1],
  expansion: 2,
  replace_stride_with_dilation: [false, false, true],
  dilations: [1, 2, 3],
  reduce_channels: 4,
  aspp_channels: 8,
  fuse_channels: 8,
} as const
