import type { AdapterTraits } from './adapter.js'
import type { Trace } from './ir.js'
import type { Cast } from './passes/autocast.js'
import { byteLength } from './shape.js'

export interface TransformOptions {
  /** Name of the program in errors and profiles. */
  readonly label?: string
  /** false: no fusion, no sharing of buffers. The results must be the same. */
  readonly optimize?: boolean
  /** The stage that a scope belongs to, if any, whose activations the backward pass computes again; see `recompute`. */
  readonly recompute?: (scope: string) => string | undefined
  /** Computes in half precision by this cast; see `autocast`. Needs an adapter with `shader-f16`. */
  readonly autocast?: Cast | undefined
  /** A last pass over what is computed, before it is divided and kernels are chosen. */
  readonly pass?: (trace: Trace) => Trace
}

/**
 * What the passes make of a trace, in their order. They are loaded by the first program that needs them: a page then begins
 * with what every program takes.
 *
 * @throws BindingLimitError where an operand stays larger than what the adapter binds at once
 */
export async function transform(full: Trace, traits: AdapterTraits, options: TransformOptions): Promise<Trace> {
  const { label = 'program', optimize = true, autocast: cast, recompute, pass } = options
  const raw = cast ? (await import('./passes/autocast.js')).autocast(full, cast) : full
  // A single operator has nothing to be fused or shared with.
  const isSeveral = raw.nodes.filter(({ op }) => op).length > 1
  const passes = optimize && isSeveral ? await import('./optimize.js') : undefined
  const fused = passes?.fuse(raw, traits, recompute) ?? raw
  const passed = pass?.(fused) ?? fused
  const divided = isTooLarge(passed, traits) ? await divideLarge(passed, traits) : passed
  const arranged = (await passes?.arrange(divided, traits)) ?? divided
  if (isTooLarge(arranged, traits)) {
    await (await import('./memory-report.js')).checkBindings(arranged, label, traits.maxBinding)
  }
  return arranged
}

const isTooLarge = ({ nodes }: Trace, { maxBinding }: AdapterTraits): boolean =>
  nodes.some(({ outputs }) => outputs.some((spec) => byteLength(spec) > maxBinding))

async function divideLarge(trace: Trace, { maxBinding }: AdapterTraits): Promise<Trace> {
  const { divide } = await import('./passes/divide.js')
  const { rowsAsSamples } = await import('./passes/rows-as-samples.js')
  return divide(await rowsAsSamples(trace, maxBinding), maxBinding)
}
