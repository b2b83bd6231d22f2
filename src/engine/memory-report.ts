import { BindingLimitError, megabytes } from './device.js'
import { labelOf, type Node, type Trace } from './ir.js'
import { type Divisions, divisionsOf } from './passes/divide.js'
import { joinedInputs, viewOffset } from './ranges.js'
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

/**
 * Throws a BindingLimitError where an operator of the trace has an operand that is larger than the adapter binds at once: a
 * single sample of it, where that is too large already.
 */
export async function checkBindings(trace: Trace, program: string, limit: number): Promise<void> {
  const divisions = await divisionsOf(trace)
  const bound = trace.nodes.filter((node) => node.op && viewOffset(node, 4) === undefined && !joinedInputs(node, 4))
  const operands = bound.flatMap((node) => operandsOf(node, divisions, limit)).filter(({ bytes }) => bytes > limit)
  // Beside a sample that is too large, other operands are whole for its sake alone.
  const [largest] = operands.sort((a, b) => Number(b.isSample) - Number(a.isSample) || b.bytes - a.bytes)
  if (largest) throw new BindingLimitError(`${program}: ${showSized(largest)}`, largest.bytes, limit)
}

function operandsOf(node: Node, divisions: Divisions, limit: number): (SizedValue & { readonly isSample: boolean })[] {
  const { op, inputs, outputs, attrs } = node
  const division = divisions.get(op)?.division({ inputs, outputs, attrs: attrs as never })
  const sized = (of: Node, whole: Spec, isDivided: boolean) => {
    const sample = { ...whole, shape: [1, ...whole.shape.slice(1)] }
    const isSample = isDivided && byteLength(sample) > limit
    const spec = isSample ? sample : whole
    return { label: labelOf(of), spec, bytes: byteLength(spec), isSample }
  }
  return [
    ...inputs.map((value, i) =>
      sized(value.node, value.node.outputs[value.index] ?? value, division?.inputs[i] === 'divided'),
    ),
    ...outputs.map((output, k) => sized(node, output, division?.outputs[k] === 'joined' && !division.last)),
  ]
}

/** What a program needs and which tensors are the largest, for the message of a failed allocation. */
export function describeMemory(trace: Trace, planned: number): string {
  const largest = new Set(valuesBySize(trace).map(showSized))
  return `${megabytes(planned)}, the largest tensors being ${[...largest].slice(0, 3).join('; ')}`
}
