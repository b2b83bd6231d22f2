import { count, extents4, get, type Values, values } from './values.js'

export function concat(tensors: readonly Values[], axis: number): Values {
  const [first] = tensors
  if (!first) throw new RangeError('concat of nothing')
  const total = tensors.reduce((sum, { shape }) => sum + (shape[axis] ?? 0), 0)
  const outer = count(first.shape.slice(0, axis))
  const parts: number[] = []
  for (let o = 0; o < outer; o++) {
    for (const x of tensors) {
      const inner = count(x.shape.slice(axis))
      parts.push(...x.data.subarray(o * inner, (o + 1) * inner))
    }
  }
  return values(first.shape.with(axis, total), parts)
}

export function flip(x: Values): Values {
  const [n, h, w, c] = extents4(x)
  const y = values(x.shape)
  for (let row = 0; row < n * h; row++) {
    for (let column = 0; column < w; column++) {
      for (let k = 0; k < c; k++) y.data[(row * w + column) * c + k] = get(x, (row * w + w - 1 - column) * c + k)
    }
  }
  return y
}

/** Samples of x by their indices. */
export function take(x: Values, index: Values): Values {
  const size = count(x.shape.slice(1))
  const parts = Array.from(index.data, (sample) => [...x.data.subarray(sample * size, (sample + 1) * size)])
  return values([index.data.length, ...x.shape.slice(1)], parts.flat())
}

/** Axis k of the result is axis `axes[k]` of x. */
export function permute(x: Values, axes: readonly number[]): Values {
  const result = values(axes.map((axis) => x.shape[axis] ?? 0))
  for (let i = 0; i < result.data.length; i++) {
    let rest = i
    let from = 0
    for (const axis of axes.toReversed()) {
      const extent = x.shape[axis] ?? 1
      from += (rest % extent) * count(x.shape.slice(axis + 1))
      rest = Math.floor(rest / extent)
    }
    result.data[i] = get(x, from)
  }
  return result
}

export function slice(x: Values, axis: number, start: number, size: number): Values {
  const outer = count(x.shape.slice(0, axis))
  const inner = count(x.shape.slice(axis + 1))
  const extent = x.shape[axis] ?? 0
  const parts: number[] = []
  for (let o = 0; o < outer; o++) {
    for (let i = start; i < start + size; i++) {
      parts.push(...x.data.subarray((o * extent + i) * inner, (o * extent + i + 1) * inner))
    }
  }
  return values(x.shape.with(axis, size), parts)
}

/** `sums` [H, W, C] plus each map of `maps` [N, h, w, C] from its place on, [N, 2] of a row and a column; cut at the border. */
export function addWindows(sums: Values, maps: Values, places: Values): Values {
  const [height = 0, width = 0, channels = 0] = sums.shape
  const [, mapHeight = 0, mapWidth = 0] = maps.shape
  const result = values(sums.shape, sums.data)
  for (let i = 0; i < maps.data.length; i++) {
    const pixel = Math.floor(i / channels)
    const map = Math.floor(pixel / (mapHeight * mapWidth))
    const row = (get(places, 2 * map) | 0) + (Math.floor(pixel / mapWidth) % mapHeight)
    const column = (get(places, 2 * map + 1) | 0) + (pixel % mapWidth)
    if (row < 0 || row >= height || column < 0 || column >= width) continue
    const cell = (row * width + column) * channels + (i % channels)
    result.data[cell] = get(result, cell) + get(maps, i)
  }
  return result
}

/** Tensors side by side along an axis of extent `size`, each from its start on, and zeros where none lies. */
export function pad(tensors: readonly Values[], axis: number, starts: readonly number[], size: number): Values {
  const [first = values([])] = tensors
  const y = values(first.shape.with(axis, size))
  const unit = count(first.shape.slice(axis + 1))
  for (const [k, x] of tensors.entries()) {
    const inner = count(x.shape.slice(axis))
    for (const [i, value] of x.data.entries()) {
      const outer = Math.floor(i / inner)
      y.data[(outer * size + (starts[k] ?? 0)) * unit + i - outer * inner] = value
    }
  }
  return y
}
