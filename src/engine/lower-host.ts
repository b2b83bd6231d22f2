import { labelOf, type Node } from './ir.js'
import type { HostCall, Operand } from './kernel.js'
import { type HostBeginCommand, type HostEndCommand, infoOf, shortSpec } from './lower.js'
import { byteLength, type Spec } from './shape.js'

/** The beginning of a node's host call. */
export function beginHost(node: Node, call: HostCall, keyOf: (operand: Operand) => string): HostBeginCommand {
  const specs = call.reads.map(({ index }) => node.inputs[index] ?? { shape: [], dtype: 'f32' as const })
  const info = infoOf(node, 'host call begins', specs.map(shortSpec).join(', '), bytesOf(specs))
  return { kind: 'host begin', label: labelOf(node), info, call, reads: call.reads.map(keyOf), specs }
}

/** Its end. */
export function endHost(node: Node, begin: HostBeginCommand, keyOf: (operand: Operand) => string): HostEndCommand {
  const { call } = begin
  const specs = call.writes.map(({ index }) => node.outputs[index] ?? { shape: [], dtype: 'f32' as const })
  const info = infoOf(node, 'host call ends', specs.map(shortSpec).join(', '), bytesOf(specs))
  return { kind: 'host end', label: labelOf(node), info, begin, writes: call.writes.map(keyOf), specs }
}

const bytesOf = (specs: readonly Spec[]): number => specs.reduce((sum, spec) => sum + byteLength(spec), 0)
