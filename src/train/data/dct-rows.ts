import type { Image } from './pixels.js'

/** A row of red, green and blue, one array each. */
export type Channels = readonly [Uint8Array, Uint8Array, Uint8Array]

/** An image by its rows. */
export interface Rows {
  readonly width: number
  readonly height: number
  /** Valid until another row is asked for. */
  row(index: number): Channels
}

const channelsOf = (width: number): Channels => [new Uint8Array(width), new Uint8Array(width), new Uint8Array(width)]

/** The rows of an image [H, W, 3]. */
export function rowsOf({ data, width, height }: Readonly<Image>): Rows {
  const channels = channelsOf(width)
  const row = (index: number): Channels => {
    for (const [c, channel] of channels.entries()) {
      let from = 3 * width * index + c
      for (let x = 0; x < width; x++, from += 3) channel[x] = data[from] as number
    }
    return channels
  }
  return { width, height, row }
}

/**
 * A row of one channel at twice its width, as the row below or above weighs it when the height is doubled: a row is
 * (near of the nearer row + far of the other one + 2) / 4, rounded down. The sums are cut off before they are added, as in
 * libjpeg and in OpenCV.
 */
function widen(row: Uint8Array, near: Uint16Array, far: Uint16Array): void {
  const last = row.length - 1
  for (let x = 0; x <= last; x++) {
    const center = 3 * (row[x] as number)
    const left = center + (row[x === 0 ? 0 : x - 1] as number)
    const right = center + (row[x === last ? last : x + 1] as number)
    near[2 * x] = (3 * left) >> 2
    near[2 * x + 1] = (3 * right) >> 2
    far[2 * x] = left >> 2
    far[2 * x + 1] = right >> 2
  }
}

function blend(near: Uint16Array, far: Uint16Array, out: Uint8Array): void {
  for (let x = 0; x < out.length; x++) out[x] = ((near[x] as number) + (far[x] as number) + 2) >> 2
}

/** Rows of which the latest are kept, each in the place of an older one. */
class LatestRows<T> {
  private readonly rows: { index: number; readonly values: T }[]

  constructor(
    count: number,
    make: () => T,
    private readonly fill: (index: number, values: T) => void,
  ) {
    this.rows = Array.from({ length: count }, () => ({ index: -1, values: make() }))
  }

  get(index: number): T {
    const row = this.rows[index % this.rows.length]
    if (!row) throw new Error('unreachable: no rows are kept')
    if (row.index !== index) {
      row.index = index
      this.fill(index, row.values)
    }
    return row.values
  }
}

/** A row at twice its width, of each channel; see `widen`. */
interface Widened {
  readonly near: readonly Uint16Array[]
  readonly far: readonly Uint16Array[]
}

/** Rows of an image at twice its size: bilinear, with pixels at the middle of their squares, the border repeated. */
export function doubled(source: Rows): Rows {
  const [width, height] = [2 * source.width, 2 * source.height]
  const wide = () => [0, 1, 2].map(() => new Uint16Array(width))
  const widened = new LatestRows<Widened>(
    3,
    () => ({ near: wide(), far: wide() }),
    (index, { near, far }) => {
      for (const [c, channel] of source.row(index).entries()) {
        widen(channel, near[c] as Uint16Array, far[c] as Uint16Array)
      }
    },
  )
  const rows = new LatestRows<Channels>(
    2,
    () => channelsOf(width),
    (index, channels) => {
      const nearest = index >> 1
      const other = Math.max(0, Math.min(source.height - 1, nearest + (index % 2 === 0 ? -1 : 1)))
      const { near } = widened.get(nearest)
      const { far } = widened.get(other)
      for (const [c, channel] of channels.entries()) blend(near[c] as Uint16Array, far[c] as Uint16Array, channel)
    },
  )
  return { width, height, row: (index) => rows.get(index) }
}

/** Luma of a row as JPEG has it, the last value repeated to the end of `out`. */
export function lumaOf([red, green, blue]: Channels, out: Uint8Array): void {
  const { length } = red
  for (let x = 0; x < length; x++) {
    const sum = 19595 * (red[x] as number) + 38470 * (green[x] as number) + 7471 * (blue[x] as number)
    out[x] = (sum + 32768) >> 16
  }
  out.fill(out[length - 1] as number, length)
}

/** (128 + 1/2) * 2^16, less one: JPEG rounds halves of chroma down. */
const chromaOffset = 8421375

/** Both differences of colour of a row as JPEG has them. */
export function chromaOf([red, green, blue]: Channels, cb: Uint8Array, cr: Uint8Array): void {
  for (let x = 0; x < red.length; x++) {
    const r = red[x] as number
    const g = green[x] as number
    const b = blue[x] as number
    cb[x] = (-11059 * r - 21709 * g + 32768 * b + chromaOffset) >> 16
    cr[x] = (32768 * r - 27439 * g - 5329 * b + chromaOffset) >> 16
  }
}

/**
 * Two rows at half their width: means of 2x2 values, rounded down and up in turn. Behind their end the last values are
 * repeated to the end of `out`.
 */
export function halve(above: Uint8Array, below: Uint8Array, out: Uint8Array): void {
  const last = above.length - 1
  for (let x = 0; x < out.length; x++) {
    const left = 2 * x < last ? 2 * x : last
    const right = left < last ? left + 1 : last
    const sum = (above[left] as number) + (above[right] as number) + (below[left] as number) + (below[right] as number)
    out[x] = (sum + 1 + (x & 1)) >> 2
  }
}
