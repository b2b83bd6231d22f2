import { type Box, cut, type Image } from '../data/pixels.js'

/** A part of an image that is computed by itself, and the part of the result that is kept of it. */
export interface Tile {
  readonly seen: Box
  /** Within the image; the kept parts of all tiles cover it without overlap. */
  readonly kept: Box
}

/** Share of a tile's side that it has in common with its neighbour, at least. */
const overlap = 0.25

/** Starts of chunks of length `tile` that cover `extent` evenly, and the places where one takes over from the next. */
function chunks(extent: number, tile: number): { start: number; from: number; to: number }[] {
  const step = Math.max(1, Math.floor(tile * (1 - overlap)))
  const count = extent <= tile ? 1 : Math.ceil((extent - tile) / step) + 1
  const start = (i: number) => (count === 1 ? 0 : Math.round((i * (extent - tile)) / (count - 1)))
  // In the middle of what two neighbours share, both are equally far from their borders.
  const border = (i: number) => Math.floor((start(i - 1) + tile + start(i)) / 2)
  return Array.from({ length: count }, (_, i) => ({
    start: start(i),
    from: i === 0 ? 0 : border(i),
    to: i === count - 1 ? extent : border(i + 1),
  }))
}

/**
 * Tiles of one size, of at most `maxPixels` pixels, that overlap by a quarter of their sides or more; one tile where the
 * image is small enough.
 */
export function tilesOf(width: number, height: number, maxPixels: number): Tile[] {
  let [w, h] = [width, height]
  if (width * height > maxPixels) {
    const side = Math.max(1, Math.floor(Math.sqrt(maxPixels)))
    if (width <= height) {
      w = Math.min(width, side)
      h = Math.min(height, Math.max(1, Math.floor(maxPixels / w)))
    } else {
      h = Math.min(height, side)
      w = Math.min(width, Math.max(1, Math.floor(maxPixels / h)))
    }
  }
  return chunks(height, h).flatMap((row) =>
    chunks(width, w).map((column) => ({
      seen: { x: column.start, y: row.start, w, h },
      kept: { x: column.from, y: row.from, w: column.to - column.from, h: row.to - row.from },
    })),
  )
}

/** The labels of a tile, of which only those that are kept count. */
export function keptOnly(target: Readonly<Image>, seen: Box, kept: Box, ignored: number): Uint8Array {
  const out = new Uint8Array(seen.w * seen.h).fill(ignored)
  const part = cut(target, 1, kept)
  for (let row = 0; row < kept.h; row++) {
    const to = (kept.y - seen.y + row) * seen.w + kept.x - seen.x
    out.set(part.data.subarray(row * kept.w, (row + 1) * kept.w), to)
  }
  return out
}

/** Copies the kept part of values [·, ·, channels] that lie at `from` of an image into a map of its rows from `top` on. */
export function paste<A extends Uint8Array | Uint32Array | Float32Array>(
  values: A,
  channels: number,
  from: Box,
  kept: Box,
  map: A,
  width: number,
  top = 0,
): void {
  for (let y = kept.y; y < kept.y + kept.h; y++) {
    const start = ((y - from.y) * from.w + kept.x - from.x) * channels
    map.set(values.subarray(start, start + kept.w * channels), ((y - top) * width + kept.x) * channels)
  }
}
