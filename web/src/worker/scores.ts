import type { Segmentation, Size } from '../protocol.js'

export type Decided = Pick<Segmentation, 'width' | 'height' | 'labels' | 'confidence'>

/** Where an output pixel reads along one axis, with half-pixel centres: two neighbours, and the share of the second. */
function taps(
  from: number,
  to: number,
): { readonly first: Int32Array; readonly second: Int32Array; readonly share: Float32Array } {
  const [first, second, share] = [new Int32Array(to), new Int32Array(to), new Float32Array(to)]
  for (let i = 0; i < to; i++) {
    const at = Math.min(from - 1, Math.max(0, ((i + 0.5) * from) / to - 0.5))
    first[i] = Math.floor(at)
    second[i] = Math.min(from - 1, Math.floor(at) + 1)
    share[i] = at - Math.floor(at)
  }
  return { first, second, share }
}

/**
 * The most probable class of each pixel and its probability, of logits that are enlarged before (bilinear).
 * @param logits of class c at row y and column x: `logits[y * strides.row + x * strides.column + c * strides.class]`
 */
export function decide(
  logits: Float32Array,
  { width, height }: Size,
  classes: number,
  strides: { readonly row: number; readonly column: number; readonly class: number },
  out: Size,
): Decided {
  const labels = new Uint8Array(out.width * out.height)
  const confidence = new Float32Array(out.width * out.height)
  const [x, y] = [taps(width, out.width), taps(height, out.height)]
  const values = new Float32Array(classes)
  for (let row = 0, at = 0; row < out.height; row++) {
    const [top, bottom, down] = [
      (y.first[row] ?? 0) * strides.row,
      (y.second[row] ?? 0) * strides.row,
      y.share[row] ?? 0,
    ]
    for (let column = 0; column < out.width; column++, at++) {
      const [left, right] = [(x.first[column] ?? 0) * strides.column, (x.second[column] ?? 0) * strides.column]
      const across = x.share[column] ?? 0
      let best = 0
      for (let c = 0, offset = 0; c < classes; c++, offset += strides.class) {
        const above = (logits[top + left + offset] ?? 0) * (1 - across) + (logits[top + right + offset] ?? 0) * across
        const below =
          (logits[bottom + left + offset] ?? 0) * (1 - across) + (logits[bottom + right + offset] ?? 0) * across
        const value = above * (1 - down) + below * down
        values[c] = value
        if (value > (values[best] ?? 0)) best = c
      }
      const most = values[best] ?? 0
      let sum = 0
      for (let c = 0; c < classes; c++) sum += Math.exp((values[c] ?? 0) - most)
      labels[at] = best
      confidence[at] = 1 / sum
    }
  }
  return { ...out, labels, confidence }
}
