import { elements, type Shape } from '../engine/shape.js'
import type { Conv2dOptions } from '../kernels/conv2d.js'

/** A convolution without groups of x [N, H, W, C] by w [KH, KW, C, O]; a matrix product is one of a single row and tap. */
export interface Product extends Omit<Conv2dOptions, 'groups'> {
  readonly x: Shape
  readonly w: Shape
}

/** The result, and the gradients of sum(dy · y), in double precision. */
export type Products = Readonly<Record<'y' | 'dx' | 'dw', Float64Array>>

/** [N, H, W, O] of the result. */
export function resultShape({ x, w, stride = 1, padding = 0, dilation = 1 }: Product): number[] {
  const extent = (size = 0, taps = 0) => Math.floor((size + 2 * padding - dilation * (taps - 1) - 1) / stride) + 1
  return [x[0] ?? 0, extent(x[1], w[0]), extent(x[2], w[1]), w[3] ?? 0]
}

/** All three by the definition. */
export function products(product: Product, data: Readonly<Record<'x' | 'w' | 'dy', Float32Array>>): Products {
  const [, height = 0, width = 0, channels = 0] = product.x
  const [kh = 0, kw = 0, , outputs = 0] = product.w
  const { stride = 1, padding = 0, dilation = 1 } = product
  const shape = resultShape(product)
  const [n = 0, rows = 0, columns = 0] = shape
  const y = new Float64Array(elements(shape))
  const dx = new Float64Array(elements(product.x))
  const dw = new Float64Array(elements(product.w))
  const tap = (pixel: number, from: number, weights: number) => {
    for (let c = 0; c < channels; c++) {
      const value = data.x[from + c] ?? 0
      let gradient = 0
      for (let o = 0; o < outputs; o++) {
        const weight = weights + c * outputs + o
        const dy = data.dy[pixel + o] ?? 0
        const w = data.w[weight] ?? 0
        y[pixel + o] = (y[pixel + o] ?? 0) + value * w
        dw[weight] = (dw[weight] ?? 0) + value * dy
        gradient += dy * w
      }
      dx[from + c] = (dx[from + c] ?? 0) + gradient
    }
  }
  for (let pixel = 0; pixel < n * rows * columns; pixel++) {
    const image = Math.floor(pixel / (rows * columns))
    const top = (Math.floor(pixel / columns) % rows) * stride - padding
    const left = (pixel % columns) * stride - padding
    for (let k = 0; k < kh * kw; k++) {
      const row = top + Math.floor(k / kw) * dilation
      const column = left + (k % kw) * dilation
      if (row < 0 || row >= height || column < 0 || column >= width) continue
      const from = ((image * height + row) * width + column) * channels
      tap(pixel * outputs, from, k * channels * outputs)
    }
  }
  return { y, dx, dw }
}
