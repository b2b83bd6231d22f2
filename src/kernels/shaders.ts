import { type Specialization, specialize } from '../engine/shader.js'
import { shaderSources } from './shaders.generated.js'

export type ShaderName = keyof typeof shaderSources

/** Equal changes give the very same string, so that its hash is computed once: programs look pipelines up by it. */
const specialized = new Map<string, string>()

/** A file of shaders/ with its constants, types and hooks replaced. */
export function shader(name: ShaderName, changes: Specialization = {}): string {
  const key = name + JSON.stringify(changes)
  const known = specialized.get(key)
  if (known !== undefined) return known
  const made = specialize(shaderSources[name], changes)
  specialized.set(key, made)
  return made
}

/**
 * Workgroup shape for kernels that walk rows with lanes along channels: on a CPU driver a row per subgroup of 8, on a
 * GPU as many lanes as there are channels, up to 64.
 */
export function rowWorkgroup(channels: number, software: boolean): { WIDTH: number; HEIGHT: number } {
  let width = 8
  while (!software && width < 64 && width < channels) width *= 2
  return { WIDTH: width, HEIGHT: 64 / width }
}

/** Reads a label map of either element type: the hook `load_target` of shaders that declare `targets`. */
export const loadTarget = (dtype: string): string =>
  dtype === 'u8'
    ? 'fn load_target(row: u32) -> u32 {\n  return (targets[row >> 2u] >> ((row & 3u) * 8u)) & 0xffu;\n}'
    : 'fn load_target(row: u32) -> u32 {\n  return targets[row];\n}'
