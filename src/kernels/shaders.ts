import { ceilDiv } from '../engine/kernel.js'
import { type Specialization, specialize } from '../engine/shader.js'
import type { Spec } from '../engine/shape.js'
import { valueText } from '../engine/value-text.js'
import type { Shader } from './shaders.generated.js'
import { packType } from './views.js'

/** Equal changes give the very same string, so that its hash is computed once: programs look pipelines up by it. */
const specialized = new Map<string, string>()

/** A file of shaders/ with its constants, types and hooks replaced. */
export function shader({ name, text }: Shader, changes: Specialization = {}): string {
  const key = name + valueText(changes)
  const known = specialized.get(key)
  if (known !== undefined) return known
  const made = specialize(text, changes)
  specialized.set(key, made)
  return made
}

/**
 * How a kernel takes the channels of a map: four at once where their number allows it, since on a CPU driver a load or
 * store of four costs as much as two or three single ones, and a GPU moves 16 bytes per lane best.
 */
export interface Packing {
  /** Channels that a thread computes at once. */
  readonly pack: 1 | 4
  /** Packs of a row. */
  readonly packs: number
}

export function packed(channels: number): Packing {
  return channels % 4 === 0 ? { pack: 4, packs: channels / 4 } : { pack: 1, packs: channels }
}

/** The types of a shader that reads packs of one tensor and writes those of another: read, written, computed with. */
export const packTypes = (pack: 1 | 4, read: Spec, written: Spec): Record<'T' | 'U' | 'V', string> => ({
  T: packType(read, pack),
  U: packType(written, pack),
  V: pack === 4 ? 'vec4f' : 'f32',
})

/**
 * Workgroup shape for kernels that walk rows with lanes along packs of channels: on a CPU driver a row or several per
 * subgroup of 8, on a GPU as many lanes as there are packs, up to 64.
 */
export function rowWorkgroup(packs: number, software: boolean): { WIDTH: number; HEIGHT: number } {
  const most = software ? 8 : 64
  let width = 1
  while (width < most && width < packs) width *= 2
  return { WIDTH: width, HEIGHT: 64 / width }
}

/**
 * How many threads walk along a line of `length` steps, and how many steps each takes, where there are as many lines as
 * `lines`. On a CPU driver starting a thread costs as much as ten steps and a few hundred occupy its cores.
 */
export function chunksOf(lines: number, length: number, software: boolean): { chunks: number; each: number } {
  const wanted = software ? 1024 : 2 ** 17
  const shortest = software ? 8 : 4
  const chunks = Math.max(1, Math.min(ceilDiv(wanted, lines), Math.floor(length / shortest)))
  const each = ceilDiv(length, chunks)
  return { chunks: ceilDiv(length, each), each }
}

/** Reads a label map of either element type: the hook `load_target` of shaders that declare `targets`. */
export const loadTarget = (dtype: string): string =>
  dtype === 'u8'
    ? 'fn load_target(row: u32) -> u32 {\n  return (targets[row >> 2u] >> ((row & 3u) * 8u)) & 0xffu;\n}'
    : 'fn load_target(row: u32) -> u32 {\n  return targets[row];\n}'
