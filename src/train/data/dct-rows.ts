import { blend, chromaOf, halve, lumaOf, rowMemory, widen } from './dct-kernels.js'
import type { Image } from './pixels.js'

/** Addresses of a row of red, green and blue. */
export type ChannelRows = readonly [red: number, green: number, blue: number]

/** A row at twice its width, of each channel; see `widen`. */
interface Widened {
  readonly near: ChannelRows
  readonly far: ChannelRows
}

/** Between regions of the memory: kernels read a byte before a row, and write up to 32 behind it. */
const margin = 48

/** Rows of a region, each behind a margin. */
class Region {
  /** @param bytes of a row */
  constructor(
    private readonly start: number,
    private readonly bytes: number,
  ) {}

  static size = (rows: number, bytes: number): number => rows * (bytes + margin) + margin

  row(index: number): number {
    return this.start + index * (this.bytes + margin) + margin / 2
  }

  /** Rows of all channels. */
  channels(index: number): ChannelRows {
    return [this.row(3 * index), this.row(3 * index + 1), this.row(3 * index + 2)]
  }
}

/** Rows of which the latest are kept, each in the place of an older one. */
class LatestRows<T> {
  private readonly indices: number[]

  constructor(
    private readonly places: readonly T[],
    private readonly fill: (index: number, place: T) => void,
  ) {
    this.indices = places.map(() => -1)
  }

  get(index: number): T {
    const slot = index % this.places.length
    const place = this.places[slot] as T
    if (this.indices[slot] !== index) {
      this.indices[slot] = index
      this.fill(index, place)
    }
    return place
  }
}

/**
 * Rows of an image at twice its size: bilinear, with pixels at the middle of their squares, the border repeated.
 * @param source rows of the image, a byte before and behind which repeat their ends
 * @param widened places of three rows of it
 * @param places of the result's rows
 * @param width of the result
 */
function doubled(
  source: (index: number) => ChannelRows,
  height: number,
  widened: readonly Widened[],
  places: readonly ChannelRows[],
  width: number,
): LatestRows<ChannelRows> {
  const wide = new LatestRows(widened, (index, { near, far }) => {
    const rows = source(index)
    for (let c = 0; c < 3; c++) widen(rows[c] as number, near[c] as number, far[c] as number, width / 2)
  })
  return new LatestRows(places, (index, row) => {
    const nearest = index >> 1
    const other = Math.max(0, Math.min(height - 1, nearest + (index % 2 === 0 ? -1 : 1)))
    const { near } = wide.get(nearest)
    const { far } = wide.get(other)
    for (let c = 0; c < 3; c++) {
      blend(near[c] as number, far[c] as number, row[c] as number, width)
      repeatEnds(row[c] as number, width)
    }
  })
}

function repeatEnds(row: number, width: number): void {
  const bytes = rowMemory.bytes(row - 1, width + 2)
  bytes[0] = bytes[1] as number
  bytes[width + 1] = bytes[width] as number
}

/** An image at twice and at four times its size, a few rows at a time. */
export class EnlargedImage {
  /** Rows of the image at twice its size. */
  readonly rows: number
  private readonly two: LatestRows<ChannelRows>
  private readonly four: LatestRows<ChannelRows>
  private readonly chroma: Region
  private readonly planes: Region

  /**
   * Memory is shared: of two such images the later one alone can be read.
   * @param image [H, W, 3]
   * @param width of the image at twice its size, a multiple of 8: what it has more than the image repeats the border
   * @param planeRows rows of each of the three planes
   */
  constructor(
    image: Readonly<Image>,
    readonly width: number,
    planeRows: number,
  ) {
    this.rows = 2 * image.height
    const half = width / 2
    const start = rowMemory.reserve({
      image: Region.size(3, half),
      widenedImage: Region.size(3 * 6, 2 * width),
      two: Region.size(2 * 3, width),
      widenedTwo: Region.size(3 * 6, 4 * width),
      four: Region.size(3, 2 * width),
      chroma: Region.size(4, 2 * width),
      planes: Region.size(3, planeRows * width),
    })
    const own = new Region(start.image, half).channels(0)
    const one = new LatestRows([own], (index) => separate(image, index, own, half))
    const widened = (from: number, bytes: number): Widened[] => {
      const region = new Region(from, bytes)
      return [0, 1, 2].map((k) => ({ near: region.channels(2 * k), far: region.channels(2 * k + 1) }))
    }
    const two = new Region(start.two, width)
    const pairOf = [two.channels(0), two.channels(1)]
    this.two = doubled((index) => one.get(index), image.height, widened(start.widenedImage, 2 * width), pairOf, width)
    const four = [new Region(start.four, 2 * width).channels(0)]
    this.four = doubled(
      (index) => this.two.get(index),
      this.rows,
      widened(start.widenedTwo, 4 * width),
      four,
      2 * width,
    )
    this.chroma = new Region(start.chroma, 2 * width)
    this.planes = new Region(start.planes, planeRows * width)
  }

  /** A row of the image at twice its size: bytes of each channel, valid until further rows are asked for. */
  row(index: number): readonly Uint8Array[] {
    return this.two.get(index).map((address) => rowMemory.bytes(address, this.width))
  }

  /** Luma and both chroma planes, [rows, width] each, as long as the memory is this image's. */
  get bytesOfPlanes(): readonly [luma: Uint8Array, cb: Uint8Array, cr: Uint8Array] {
    const plane = (index: number) => {
      const start = this.planes.row(index)
      return rowMemory.bytes(start, this.planes.row(index + 1) - start - margin)
    }
    return [plane(0), plane(1), plane(2)]
  }

  /**
   * Writes a row of the planes: luma of a row of the image at twice its size, and the chroma of the image at four times its
   * size, halved.
   */
  fillPlanes(row: number, index: number): void {
    const { width } = this
    const [luma, cb, cr] = [0, 1, 2].map((plane) => this.planes.row(plane) + row * width) as [number, number, number]
    lumaOf(this.two.get(index), luma, width)
    const [cbAbove, crAbove, cbBelow, crBelow] = [0, 1, 2, 3].map((k) => this.chroma.row(k)) as [
      number,
      number,
      number,
      number,
    ]
    chromaOf(this.four.get(2 * index), cbAbove, crAbove, 2 * width)
    chromaOf(this.four.get(2 * index + 1), cbBelow, crBelow, 2 * width)
    halve(cbAbove, cbBelow, cb, width)
    halve(crAbove, crBelow, cr, width)
  }
}

/** The channels of a row of an image, the last pixel repeated to `width`, with both ends repeated. */
function separate({ data, width: given }: Readonly<Image>, index: number, to: ChannelRows, width: number): void {
  for (let c = 0; c < 3; c++) {
    const channel = rowMemory.bytes(to[c] as number, width)
    let from = 3 * given * index + c
    for (let x = 0; x < given; x++, from += 3) channel[x] = data[from] as number
    channel.fill(channel[given - 1] as number, given)
    repeatEnds(to[c] as number, width)
  }
}
