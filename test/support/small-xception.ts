/** Widths of a DeepLabV3+ on an Xception that is evaluated in milliseconds. */
export const smallXception = {
  family: 'xception',
  conv1: 4,
  conv2: 6,
  entry: [6, 8, 9],
  middle_blocks: 2,
  exit: [10, 12, 14, 16],
  output_stride: 16,
  backbone_bn_momentum: 0.0003,
  dilations: [1, 2, 3],
  reduce_channels: 4,
  aspp_channels: 8,
  fuse_channels: 8,
  nclass: 3,
} as const
