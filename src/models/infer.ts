import type { ModelConfig, StateShapes } from './segmentation.js'

/** Output channels of a convolution of a state_dict, by the name of its module; 0 where there is none. */
export function outputsOf(state: StateShapes, name: string): number {
  const shape = state.get(`${name}.weight`)?.shape ?? []
  // A convolution without a single value tells nothing, however wide it claims to be.
  return shape.length === 4 && shape.every((extent) => extent > 0) ? (shape[0] ?? 0) : 0
}

/** Without the widths that were not found: those that are not positive whole numbers. */
export function knownWidths(widths: Readonly<Record<string, number | readonly number[]>>): object {
  const isKnown = (value: number | readonly number[]) => [value].flat().every((n) => Number.isInteger(n) && n > 0)
  return Object.fromEntries(Object.entries(widths).filter(([, value]) => isKnown(value)))
}

/** Keys in which a configuration differs from what was found, such as the widths that a state_dict shows. */
export const differingKeys = (config: ModelConfig, found: object): string[] =>
  Object.entries(found).flatMap(([key, value]) => (String(value) === String(config[key]) ? [] : [key]))
