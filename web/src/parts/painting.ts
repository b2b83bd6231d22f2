import type { Picture, Size } from '../protocol.js'

/** Label of what nobody painted. */
export const unpainted = 255

/** A picture that is corrected: what the network says of it, and what was painted over that. */
export class Painting {
  /** [H, W]; undefined until it is predicted. */
  prediction: Uint8Array | undefined
  /** A class, or `unpainted`, for each pixel. */
  labels: Uint8Array<ArrayBuffer>
  /** Labels before each stroke. */
  private readonly before: Uint8Array<ArrayBuffer>[] = []

  constructor(
    readonly name: string,
    readonly picture: Picture,
  ) {
    this.labels = new Uint8Array(picture.width * picture.height).fill(unpainted)
  }

  get size(): Size {
    return this.picture
  }

  /** Painted pixels. */
  get painted(): number {
    return this.labels.reduce((sum, label) => sum + (label === unpainted ? 0 : 1), 0)
  }

  /** What the page shows at pixel `row * width + column`: what was painted there, or the prediction, or `unpainted`. */
  shownAt(pixel: number): number {
    const label = this.labels[pixel] ?? unpainted
    return label === unpainted ? (this.prediction?.[pixel] ?? unpainted) : label
  }

  /** Remembers what there is, to be undone to. */
  begin(): void {
    this.before.push(this.labels.slice())
    if (this.before.length > 100) this.before.shift()
  }

  undo(): boolean {
    const labels = this.before.pop()
    if (labels) this.labels = labels
    return labels !== undefined
  }

  clear(): void {
    this.begin()
    this.labels.fill(unpainted)
  }

  /** Drops what was painted, and what could be undone to. */
  forget(): void {
    this.before.length = 0
    this.labels.fill(unpainted)
  }

  /** A round spot of the brush, with its middle at fractions of pixels. */
  spot(x: number, y: number, radius: number, label: number): void {
    const { width, height } = this.picture
    const reach = Math.max(0.5, radius)
    for (let row = Math.max(0, Math.floor(y - reach)); row <= Math.min(height - 1, Math.ceil(y + reach)); row++) {
      for (
        let column = Math.max(0, Math.floor(x - reach));
        column <= Math.min(width - 1, Math.ceil(x + reach));
        column++
      ) {
        const [dx, dy] = [column + 0.5 - x, row + 0.5 - y]
        const isMiddle = column === Math.floor(x) && row === Math.floor(y)
        if (isMiddle || dx * dx + dy * dy <= reach * reach) this.labels[row * width + column] = label
      }
    }
  }

  /** Spots along a line. */
  line(from: readonly [number, number], to: readonly [number, number], radius: number, label: number): void {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])))
    for (let i = 0; i <= steps; i++) {
      const share = i / steps
      this.spot(from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share, radius, label)
    }
  }

  /** Paints all that is connected with a pixel and shown as the same class. */
  fill(x: number, y: number, label: number): void {
    const { width, height } = this.picture
    const start = Math.floor(y) * width + Math.floor(x)
    const shown = this.labels.map((_, pixel) => this.shownAt(pixel))
    const wanted = shown[start]
    const seen = new Uint8Array(width * height)
    const open = [start]
    seen[start] = 1
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      this.labels[at] = label
      const column = at % width
      const row = (at - column) / width
      const visit = (next: number, isInside: boolean) => {
        if (!isInside || seen[next] || shown[next] !== wanted) return
        seen[next] = 1
        open.push(next)
      }
      visit(at - 1, column > 0)
      visit(at + 1, column < width - 1)
      visit(at - width, row > 0)
      visit(at + width, row < height - 1)
    }
  }
}
