import { BindingLimitError, megabytes } from './device.js'
import { labelOf, type Trace } from './ir.js'
import { byteLength, type Spec, showSpec } from './shape.js'

/** A value of a program. */
export interface SizedValue {
  readonly label: string
  readonly spec: Spec
  readonly bytes: number
}

/** All values of a program, the largest first. */
export const valuesBySize = ({ nodes }: Pick<Trace, 'nodes'>): SizedValue[] =>
  nodes
    .flatMap((node) => node.outputs.map((spec) => ({ label: labelOf(node), spec, bytes: byteLength(spec) })))
    .sort((a, b) => b.bytes - a.bytes)

/** `layer: operator f32[…] of … MiB` */
export const showSized = ({ label, spec, bytes }: SizedValue): string =>
  `${label} ${showSpec(spec)} of ${megabytes(bytes)}`

/** Throws a BindingLimitError where a value of the trace is larger than the adapter binds at once. */
export function checkBindings(trace: Trace, program: string, limit: number): void {
  const [largest] = valuesBySize(trace)
  if (largest && largest.bytes > limit)
    throw new BindingLimitError(`${program}: ${showSized(largest)}`, largest.bytes, limit)
}

/** What a program needs and which tensors are the largest, for the message of a failed allocation. */
export function describeMemory(trace: Trace, planned: number): string {
  const largest = new Set(valuesBySize(trace).map(showSized))
  return `${megabytes(planned)}, the largest tensors being ${[...largest].slice(0, 3).join('; ')}`
}
