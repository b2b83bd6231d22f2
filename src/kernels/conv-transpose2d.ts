import type { Tensor } from '../engine/ir.js'
import { conv2dInputGrad } from './conv2d.js'

export interface ConvTranspose2dOptions {
  readonly stride?: number
  /** What is cut off on every side. */
  readonly padding?: number
}

/**
 * 2-D transposed convolution as `torch.nn.functional.conv_transpose2d` without bias: the input gradient of the convolution
 * with the same weights. A kernel as wide as the stride gives each pixel of x a square of its own.
 *
 * @param x [N, H, W, C]
 * @param w [KH, KW, O, C]
 * @returns [N, OH, OW, O] with OH = (H − 1) stride − 2 padding + KH
 */
export function convTranspose2d(
  x: Tensor,
  w: Tensor,
  { stride = 1, padding = 0 }: ConvTranspose2dOptions = {},
): Tensor {
  const [n = 0, height = 0, width = 0] = x.shape
  const [kh = 0, kw = 0, channels = 0] = w.shape
  const extent = (size: number, taps: number) => (size - 1) * stride - 2 * padding + taps
  return conv2dInputGrad(x, w, { stride, padding, size: [n, extent(height, kh), extent(width, kw), channels] })
}
