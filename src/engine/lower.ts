import type { AdapterTraits } from './adapter.js'
import { labelOf, results, type Trace, valueKey } from './ir.js'
import type { Dispatch, Operand } from './kernel.js'
import { candidatesOf, type SelectKernel } from './kernel-selection.js'
import { type Mirror, mirrorBytes, mirrorOf } from './mirror.js'
import type { KernelInfo } from './profile.js'
import { byteLength, elements, type Spec } from './shape.js'
import type { Variable } from './store.js'

/** A value that needs storage while it lives. */
export interface Value {
  readonly key: string
  readonly spec: Spec
  readonly bytes: number
  /** What to call it in messages: operator and layer. */
  readonly label: string
  /** Where it is a mirror: a texture. */
  readonly mirror?: Mirror
}

/** One command of a program: a dispatch, a copy between values, or one into a mirror. */
export type Command =
  | {
      readonly kind: 'dispatch'
      readonly dispatch: Dispatch
      readonly label: string
      /** What a profile says of it. */
      readonly info: KernelInfo
      readonly reads: readonly string[]
      readonly writes: readonly string[]
    }
  | {
      readonly kind: 'copy' | 'mirror'
      readonly label: string
      readonly from: string
      readonly to: string
      readonly bytes: number
    }

/** A value that is computed in place: it takes over the buffer of another one. */
export interface InPlaceAlias {
  readonly output: string
  readonly input: string
  /** Index of the command that first writes the output. */
  readonly at: number
}

/** A flat list of commands over values, with nothing decided about memory. */
export interface CommandList {
  readonly commands: readonly Command[]
  readonly values: ReadonlyMap<string, Value>
  readonly inPlace: readonly InPlaceAlias[]
  readonly inputs: ReadonlyMap<string, string>
  readonly variables: ReadonlyMap<Variable, string>
  readonly outputs: ReadonlyMap<string, string>
  readonly assigned: ReadonlyMap<Variable, string>
}

/** The commands of a trace: each node becomes the dispatches of the candidate that `select` takes. */
export function lower(trace: Trace, adapter: AdapterTraits, select: SelectKernel): CommandList {
  const commands: Command[] = []
  const values = new Map<string, Value>()
  const inPlace: InPlaceAlias[] = []
  const inputs = new Map<string, string>()
  const variables = new Map<Variable, string>()
  const define = (key: string, spec: Spec, label: string) =>
    values.set(key, { key, spec, bytes: byteLength(spec), label })
  const mirrorKey = mirrors(commands, values)
  const showAll = (keys: readonly string[]) => keys.map((key) => shortSpec(values.get(key)?.spec)).join(', ')

  for (const node of trace.nodes) {
    const label = labelOf(node)
    for (const [index, spec] of node.outputs.entries()) define(`${node.id}.${index}`, spec, label)
    if (node.leaf) {
      if ('input' in node.leaf) inputs.set(node.leaf.input, `${node.id}.0`)
      else variables.set(node.leaf.variable, `${node.id}.0`)
    }
    const { op } = node
    if (!op) continue
    const candidate = select(node, candidatesOf(node, adapter))
    if (!candidate) throw new Error(`${label}: no kernel for this adapter`)
    for (const [i, spec] of (candidate.temporaries ?? []).entries())
      define(`${node.id}.t${i}`, spec, `${label} temporary`)
    for (const [output, input] of op.inplace?.(node.attrs as never) ?? []) {
      const source = node.inputs[input]
      if (source) inPlace.push({ output: `${node.id}.${output}`, input: valueKey(source), at: commands.length })
    }
    const keyOf = ({ role, index }: Operand): string => {
      if (role === 'output') return `${node.id}.${index}`
      if (role === 'temporary') return `${node.id}.t${index}`
      const source = node.inputs[index]
      if (!source) throw new Error(`${label}: a kernel binds input ${index}, but there are ${node.inputs.length}`)
      return valueKey(source)
    }
    for (const dispatch of candidate.dispatches) {
      const reads = dispatch.reads.map((operand) => (operand.mirror ? mirrorKey(keyOf(operand)) : keyOf(operand)))
      const writes = dispatch.writes.map(keyOf)
      const info = {
        op: node.name,
        layer: node.scope,
        kernel: candidate.dispatches.length === 1 ? candidate.name : `${dispatch.label}, ${candidate.name}`,
        shapes: `${showAll(reads)} → ${showAll(writes)}`,
        bytes: [...reads, ...writes].reduce((sum, key) => sum + (values.get(key)?.bytes ?? 0), 0),
      }
      commands.push({ kind: 'dispatch', dispatch, label, info, reads, writes })
    }
  }
  for (const value of results(trace)) {
    if (!values.has(valueKey(value))) throw new Error('a result was dropped from the trace')
  }
  const keys = <K>(map: ReadonlyMap<K, Parameters<typeof valueKey>[0]>) =>
    new Map([...map].map(([name, value]): [K, string] => [name, valueKey(value)]))
  return {
    commands,
    values,
    inPlace,
    inputs,
    variables,
    outputs: keys(trace.outputs),
    assigned: keys(trace.assigned),
  }
}

/** A mirror of so many bytes is kept for all its readers, since copying it again costs more time than memory. */
const smallMirror = 2 ** 18
/** A larger one is copied again for a reader that is more commands away: its memory serves others meanwhile. */
const nearCommands = 12

/**
 * Gives the mirror of a value to a command that is about to be listed. Before that it lists the copy that makes the
 * mirror, unless an earlier one is kept for so long.
 */
function mirrors(commands: Command[], values: Map<string, Value>): (source: string) => string {
  const latest = new Map<string, { readonly key: string; readonly usedAt: number }>()
  let made = 0
  return (source) => {
    const value = values.get(source)
    if (!value) throw new Error(`a kernel reads a mirror of ${source}, which is no value`)
    const { spec, bytes, label } = value
    if (elements(spec.shape) % 4 !== 0 || !['f32', 'f16'].includes(spec.dtype))
      throw new Error(`${label}: a mirror holds floats by fours`)
    const mirror = mirrorOf(spec)
    const known = latest.get(source)
    const isKept = known && (mirrorBytes(mirror) <= smallMirror || commands.length - known.usedAt <= nearCommands)
    const key = isKept ? known.key : `${source} mirror ${made++}`
    if (!isKept) {
      values.set(key, { key, spec, bytes, label: `${label} mirror`, mirror })
      commands.push({ kind: 'mirror', label: `mirror of ${label}`, from: source, to: key, bytes })
    }
    latest.set(source, { key, usedAt: commands.length })
    return key
  }
}

/** `4x33x33x64`, with the element type where that is not f32. */
const shortSpec = (spec: Spec | undefined): string =>
  spec ? `${spec.dtype === 'f32' ? '' : `${spec.dtype} `}${spec.shape.join('x') || 'scalar'}` : ''
