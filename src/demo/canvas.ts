/** Red, green, blue in [0, 1]. */
export type Rgb = readonly [number, number, number]

/** Left, top, right, bottom as fractions of the image's side. */
export type Box = readonly [number, number, number, number]

/** Writes the colour at (x, y) into `out` and returns its opacity in [0, 1]; 0 leaves the canvas as it is. */
export type Shader = (x: number, y: number, out: Float64Array) => number

/** Label argument of {@link Canvas.paint}: colour only, for shadows and reflections. */
export const keepLabel = -1

/** A square canvas of colours and labels, painted back to front. */
export class Canvas {
  /** [side, side, 3] */
  readonly rgb: Float32Array
  /** [side, side] */
  readonly label: Uint8Array
  private readonly out = new Float64Array(3)

  constructor(readonly side: number) {
    this.rgb = new Float32Array(side * side * 3)
    this.label = new Uint8Array(side * side)
  }

  /** Paints the samples inside `box`; those at least half opaque take `label`. */
  paint(box: Box, label: number, shader: Shader): void {
    const { side, rgb, out } = this
    const left = Math.max(0, Math.floor(box[0] * side))
    const top = Math.max(0, Math.floor(box[1] * side))
    const right = Math.min(side, Math.ceil(box[2] * side))
    const bottom = Math.min(side, Math.ceil(box[3] * side))
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const alpha = shader((column + 0.5) / side, (row + 0.5) / side, out)
        if (alpha <= 0) continue
        const at = row * side + column
        for (let c = 0; c < 3; c++) {
          const below = rgb[at * 3 + c] ?? 0
          rgb[at * 3 + c] = below + ((out[c] ?? 0) - below) * alpha
        }
        if (alpha >= 0.5 && label !== keepLabel) this.label[at] = label
      }
    }
  }

  /** The label at fractions (x, y) of the side, clamped to the canvas. */
  labelAt(x: number, y: number): number {
    const column = Math.min(this.side - 1, Math.max(0, Math.floor(x * this.side)))
    const row = Math.min(this.side - 1, Math.max(0, Math.floor(y * this.side)))
    return this.label[row * this.side + column] ?? 0
  }
}

/** Linear mix of two colours. */
export function mix(a: Rgb, b: Rgb, t: number): Rgb {
  return [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}
