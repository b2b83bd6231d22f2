import type { Mirror } from './mirror.js'

/** A value that needs storage from the first command that touches it to the last. */
export interface Interval {
  readonly key: string
  readonly bytes: number
  readonly first: number
  readonly last: number
  /** Values that must not lie in the same buffer while both live: a dispatch reads one of the two and writes the other. */
  readonly apart: ReadonlySet<string>
}

/** A range of a buffer, which is named by its number. */
export interface BufferRange {
  readonly buffer: number
  readonly offset: number
  readonly bytes: number
}

/** Buffers, and where in them the values lie. */
export interface BufferLayout {
  /** Bytes of each buffer. */
  readonly sizes: readonly number[]
  readonly ranges: ReadonlyMap<string, BufferRange>
}

interface Placed {
  readonly value: Interval
  readonly offset: number
}

interface FilledBuffer {
  bytes: number
  /** The values in it by their offsets. */
  readonly values: Placed[]
  /** Those that live in each stretch of commands, by their offsets. */
  readonly inStretch: (Placed[] | undefined)[]
}

/** Commands of a stretch: most values live within one, and are compared with those alone that live there too. */
const stretchCommands = 64

/** The stretches of commands that an interval touches. */
function stretchesOf({ first, last }: Pick<Interval, 'first' | 'last'>): number[] {
  const start = Math.floor(first / stretchCommands)
  return Array.from({ length: Math.floor(last / stretchCommands) - start + 1 }, (_, i) => start + i)
}

/** Offsets of bindings are multiples of this on every adapter. */
const alignment = 256
const align = (bytes: number): number => Math.ceil(bytes / alignment) * alignment

/**
 * Packs values into buffers by their lifetimes. The largest goes first, each to where the buffers grow least and then
 * the gap is tightest; no buffer grows beyond the largest value, since adapters limit them.
 *
 * @param share false: every value has a buffer of its own
 */
export function assignBuffers(values: readonly Interval[], share: boolean): BufferLayout {
  const buffers: FilledBuffer[] = []
  const ranges = new Map<string, BufferRange>()
  const order = [...values].sort((a, b) => b.bytes - a.bytes || a.first - b.first)
  const limit = order[0]?.bytes ?? 0
  for (const value of order) {
    const stretches = stretchesOf(value)
    let best = { buffer: buffers.length, offset: 0, growth: value.bytes, gap: 0 }
    for (const [buffer, candidate] of share ? buffers.entries() : []) {
      const fit = tightest(candidate, value, stretches, limit)
      if (fit && (fit.growth < best.growth || (fit.growth === best.growth && fit.gap < best.gap)))
        best = { buffer, ...fit }
    }
    const { buffer, offset } = best
    const target = buffers[buffer] ?? { bytes: 0, values: [], inStretch: [] }
    buffers[buffer] = target
    target.bytes = Math.max(target.bytes, offset + value.bytes)
    insert(target.values, { value, offset })
    for (const stretch of stretches) {
      const values = target.inStretch[stretch] ?? []
      target.inStretch[stretch] = values
      insert(values, { value, offset })
    }
    ranges.set(value.key, { buffer, offset, bytes: value.bytes })
  }
  return { sizes: buffers.map(({ bytes }) => bytes), ranges }
}

interface Fit {
  readonly offset: number
  /** Bytes by which the buffer must grow. */
  readonly growth: number
  /** Bytes between the neighbours. */
  readonly gap: number
}

/** Where in a buffer a value fits best; undefined where it fits nowhere. */
function tightest(
  { bytes, values, inStretch }: FilledBuffer,
  value: Interval,
  stretches: readonly number[],
  limit: number,
): Fit | undefined {
  const [stretch = 0] = stretches
  const near = stretches.length > 1 ? values : (inStretch[stretch] ?? [])
  let best: Fit | undefined
  let offset = 0
  for (const { value: other, offset: start } of near) {
    if (other.last < value.first || value.last < other.first) continue
    if (value.apart.has(other.key)) return undefined
    const gap = start - offset
    if (gap >= value.bytes && gap < (best?.gap ?? Number.POSITIVE_INFINITY)) best = { offset, growth: 0, gap }
    offset = Math.max(offset, align(start + other.bytes))
  }
  const growth = Math.max(0, offset + value.bytes - bytes)
  const gap = Math.max(value.bytes, bytes - offset)
  if (best ? growth > 0 || best.gap <= gap : bytes + growth > limit) return best
  return { offset, growth, gap }
}

/** Behind those that lie at the same offset or before it. */
function insert(values: Placed[], placed: Placed): void {
  let [start, end] = [0, values.length]
  while (start < end) {
    const middle = (start + end) >> 1
    if ((values[middle]?.offset ?? 0) > placed.offset) end = middle
    else start = middle + 1
  }
  values.splice(start, 0, placed)
}

/** A mirror that needs a texture while it lives. */
export interface MirrorInterval extends Pick<Interval, 'key' | 'first' | 'last'> {
  readonly mirror: Mirror
}

/**
 * Gives every mirror a texture of its format, which holds one at a time: the largest go first.
 *
 * @param share false: every mirror has a texture of its own
 */
export function assignTextures(
  mirrors: readonly MirrorInterval[],
  share: boolean,
): { readonly mirrors: readonly Mirror[]; readonly places: ReadonlyMap<string, number> } {
  const textures: { readonly mirror: Mirror; readonly inStretch: (MirrorInterval[] | undefined)[] }[] = []
  const places = new Map<string, number>()
  for (const wanted of [...mirrors].sort((a, b) => b.mirror.rows - a.mirror.rows || a.first - b.first)) {
    const stretches = stretchesOf(wanted)
    const isFree = ({ mirror, inStretch }: (typeof textures)[number]) =>
      mirror.format === wanted.mirror.format &&
      stretches.every((stretch) =>
        (inStretch[stretch] ?? []).every(({ first, last }) => last < wanted.first || wanted.last < first),
      )
    const found = share ? textures.findIndex(isFree) : -1
    const texture = found < 0 ? textures.push({ mirror: wanted.mirror, inStretch: [] }) - 1 : found
    const inStretch = textures[texture]?.inStretch ?? []
    for (const stretch of stretches) inStretch[stretch] = [...(inStretch[stretch] ?? []), wanted]
    places.set(wanted.key, texture)
  }
  return { mirrors: textures.map(({ mirror }) => mirror), places }
}

/** The largest sum of the values that live at the same time: no plan can do with less. */
export function livePeak(values: readonly Interval[]): number {
  const changes = values.flatMap(({ bytes, first, last }) => [
    { at: first, bytes },
    { at: last + 1, bytes: -bytes },
  ])
  changes.sort((a, b) => a.at - b.at || a.bytes - b.bytes)
  let sum = 0
  let most = 0
  for (const { bytes } of changes) {
    sum += bytes
    most = Math.max(most, sum)
  }
  return most
}
