import type { AdapterTraits } from './adapter.js'
import { BindingLimitError } from './device.js'
import { labelOf, type Node, results, type Trace, valueKey } from './ir.js'
import type { Dispatch, HostCall, Operand } from './kernel.js'
import { candidatesOf, type SelectKernel } from './kernel-selection.js'
import { type Mirror, mirrorBytes, mirrorOf } from './mirror.js'
import type { KernelInfo } from './profile.js'
import { joinedInputs, viewOffset } from './ranges.js'
import { byteLength, elements, isFloat, type Spec, showSpec } from './shape.js'
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

interface AnyCommand {
  readonly label: string
  /** What a profile says of it. */
  readonly info: KernelInfo
}

export interface DispatchCommand extends AnyCommand {
  readonly kind: 'dispatch'
  readonly dispatch: Dispatch
  readonly reads: readonly string[]
  readonly writes: readonly string[]
}

/** A copy of a range of a value into one of another. */
export interface CopyCommand extends AnyCommand {
  readonly kind: 'copy'
  readonly from: string
  readonly to: string
  /** Bytes of the two values at which their ranges begin. */
  readonly fromOffset: number
  readonly toOffset: number
  readonly bytes: number
}

/** A copy of a whole value into a mirror. */
export interface MirrorCommand extends AnyCommand {
  readonly kind: 'mirror'
  readonly from: string
  readonly to: string
  readonly bytes: number
}

/** Zeros in a range of a value. */
export interface ClearCommand extends AnyCommand {
  readonly kind: 'clear'
  readonly to: string
  readonly toOffset: number
  readonly bytes: number
}

/** The beginning of a host call: what it gets is read back. */
export interface HostBeginCommand extends AnyCommand {
  readonly kind: 'host begin'
  readonly call: HostCall
  readonly reads: readonly string[]
  /** Types and shapes of what is read. */
  readonly specs: readonly Spec[]
}

/** Its end, before the first command that needs a result: what it gives is written. */
export interface HostEndCommand extends AnyCommand {
  readonly kind: 'host end'
  readonly begin: HostBeginCommand
  readonly writes: readonly string[]
  readonly specs: readonly Spec[]
}

export type Command = DispatchCommand | CopyCommand | MirrorCommand | ClearCommand | HostBeginCommand | HostEndCommand

export const readsOf = (command: Command): readonly string[] => {
  if ('reads' in command) return command.reads
  return 'from' in command ? [command.from] : []
}

export const writesOf = (command: Command): readonly string[] => {
  if ('writes' in command) return command.writes
  return 'to' in command ? [command.to] : []
}

/** What a profile says of a copy. */
export const copyInfo = (what: string, bytes: number): KernelInfo => ({
  op: 'copy',
  layer: '',
  kernel: what,
  shapes: '',
  bytes: 2 * bytes,
  multiplyAdds: 0,
})

/** A value that is computed in place: it takes over the buffer of another one. */
export interface InPlaceAlias {
  readonly output: string
  readonly input: string
  /** Index of the command that first writes the output. */
  readonly at: number
}

/** A range of another value, which has no storage of its own. */
export interface View {
  /** Not a view itself. */
  readonly base: string
  /** In bytes. */
  readonly offset: number
}

/** A flat list of commands over values, with nothing decided about memory. */
export interface CommandList {
  /** Offsets of what commands bind are multiples of so many bytes. */
  readonly alignment: number
  readonly commands: readonly Command[]
  readonly values: ReadonlyMap<string, Value>
  readonly views: ReadonlyMap<string, View>
  readonly inPlace: readonly InPlaceAlias[]
  readonly inputs: ReadonlyMap<string, string>
  readonly variables: ReadonlyMap<Variable, string>
  readonly outputs: ReadonlyMap<string, string>
  readonly assigned: ReadonlyMap<Variable, string>
}

/**
 * The commands of a trace: each node becomes the dispatches of the candidate that `select` takes. Ranges of other values
 * become views; values one after the other become copies, which the planner leaves out where it can.
 *
 * @param views false: kernels copy ranges too
 */
export async function lower(
  trace: Trace,
  adapter: AdapterTraits,
  select: SelectKernel,
  views = true,
): Promise<CommandList> {
  const commands: Command[] = []
  const values = new Map<string, Value>()
  const viewed = new Map<string, View>()
  const inPlace: InPlaceAlias[] = []
  const inputs = new Map<string, string>()
  const variables = new Map<Variable, string>()
  const define = (key: string, spec: Spec, label: string): Value => {
    const value = { key, spec, bytes: byteLength(spec), label }
    values.set(key, value)
    return value
  }
  const mirrorKey = mirrors(commands, values)
  /** Host calls whose results nothing has needed yet, by these. */
  const begun = new Map<string, HostEndCommand>()
  const end = (host: HostEndCommand | undefined) => {
    if (!host) return
    for (const key of host.writes) begun.delete(key)
    commands.push(host)
  }
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
    for (const value of node.inputs) end(begun.get(valueKey(value)))
    const ranges = withoutKernel(node, adapter, views)
    if (ranges && 'offset' in ranges) {
      const [input = ''] = node.inputs.map(valueKey)
      const outer = viewed.get(input) ?? { base: input, offset: 0 }
      viewed.set(`${node.id}.0`, { base: outer.base, offset: outer.offset + ranges.offset })
      continue
    }
    if (ranges) {
      commands.push(...ranges.commands)
      continue
    }
    const candidate = await select(node, await candidatesOf(node, adapter))
    if (!candidate) throw new Error(`${label}: no kernel for this adapter`)
    for (const [i, spec] of (candidate.temporaries ?? []).entries()) {
      const { bytes } = define(`${node.id}.t${i}`, spec, `${label} temporary`)
      const limit = adapter.maxBinding
      if (bytes > limit) throw new BindingLimitError(`temporary ${showSpec(spec)} of ${label}`, bytes, limit)
    }
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
    if (candidate.host) {
      const begin = beginHost(node, candidate.host, keyOf)
      commands.push(begin)
      const ending = endHost(node, begin, keyOf)
      for (const key of ending.writes) begun.set(key, ending)
      continue
    }
    const { inputs: operands, outputs: made, attrs } = node
    const multiplyAdds = op.multiplyAdds?.({ inputs: operands, outputs: made, attrs: attrs as never }) ?? 0
    const multiplying = candidate.dispatches.filter(({ multiplies }) => multiplies)
    const products = multiplying.length > 0 ? multiplying : candidate.dispatches
    for (const dispatch of candidate.dispatches) {
      const reads = dispatch.reads.map((operand) => (operand.mirror ? mirrorKey(keyOf(operand)) : keyOf(operand)))
      const writes = dispatch.writes.map(keyOf)
      const info = {
        op: node.name,
        layer: node.scope,
        kernel: candidate.dispatches.length === 1 ? candidate.name : `${dispatch.label}, ${candidate.name}`,
        shapes: `${showAll(reads)} → ${showAll(writes)}`,
        bytes: [...reads, ...writes].reduce((sum, key) => sum + (values.get(key)?.bytes ?? 0), 0),
        multiplyAdds: products.includes(dispatch) ? multiplyAdds / products.length : 0,
      }
      commands.push({ kind: 'dispatch', dispatch, label, info, reads, writes })
    }
  }
  for (const host of new Set(begun.values())) end(host)
  for (const value of results(trace)) {
    if (!values.has(valueKey(value))) throw new Error('a result was dropped from the trace')
  }
  const keys = <K>(map: ReadonlyMap<K, Parameters<typeof valueKey>[0]>) =>
    new Map([...map].map(([name, value]): [K, string] => [name, valueKey(value)]))
  return {
    alignment: adapter.storageAlignment,
    commands,
    values,
    views: viewed,
    inPlace,
    inputs,
    variables,
    outputs: keys(trace.outputs),
    assigned: keys(trace.assigned),
  }
}

/**
 * A node whose result is ranges of its inputs: a view that begins at an offset, or copies; undefined where it takes a kernel.
 * What is too large for kernels is copied as words.
 */
function withoutKernel(
  node: Node,
  { storageAlignment, maxBinding }: AdapterTraits,
  views: boolean,
): { readonly offset: number } | { readonly commands: readonly Command[] } | undefined {
  const isTooLarge = [...node.inputs, ...node.outputs].some((spec) => byteLength(spec) > maxBinding)
  if (!views && !isTooLarge) return undefined
  const offset = viewOffset(node, storageAlignment)
  if (offset !== undefined) return { offset }
  const fromOffset = isTooLarge ? viewOffset(node, 4) : undefined
  if (fromOffset !== undefined) return { commands: [rangeCommand(node, fromOffset)] }
  const commands = joinCommands(node, isTooLarge ? 4 : storageAlignment)
  return commands && { commands }
}

/** Copies of the values that a node's result is one after the other; undefined where it is not. */
function joinCommands(node: Node, alignment: number): Command[] | undefined {
  const joined = joinedInputs(node, alignment)
  if (!joined) return undefined
  const label = labelOf(node)
  const to = `${node.id}.0`
  const shape = shortSpec(node.outputs[0])
  const copies = node.inputs.map((value, i): Command => {
    const bytes = byteLength(value)
    const info = infoOf(node, 'copy of a part', `${shortSpec(value)} → ${shape}`, 2 * bytes)
    const toOffset = joined.offsets[i] ?? 0
    return { kind: 'copy', label, info, from: valueKey(value), to, fromOffset: 0, toOffset, bytes }
  })
  const zeros = joined.zeros.map(({ offset: toOffset, bytes }): Command => {
    return { kind: 'clear', label, info: infoOf(node, 'zeros', shape, bytes), to, toOffset, bytes }
  })
  return [...copies, ...zeros]
}

/** The copy of a range of a node's input. */
function rangeCommand(node: Node, fromOffset: number): Command {
  const [from = ''] = node.inputs.map(valueKey)
  const bytes = byteLength(node.outputs[0] ?? node.inputs[0] ?? { shape: [], dtype: 'f32' })
  const shapes = `${shortSpec(node.inputs[0])} → ${shortSpec(node.outputs[0])}`
  const info = infoOf(node, 'copy of a range', shapes, 2 * bytes)
  return { kind: 'copy', label: labelOf(node), info, from, to: `${node.id}.0`, fromOffset, toOffset: 0, bytes }
}

function beginHost(node: Node, call: HostCall, keyOf: (operand: Operand) => string): HostBeginCommand {
  const specs = call.reads.map(({ index }) => node.inputs[index] ?? { shape: [], dtype: 'f32' as const })
  const info = infoOf(node, 'host call begins', specs.map(shortSpec).join(', '), bytesOf(specs))
  return { kind: 'host begin', label: labelOf(node), info, call, reads: call.reads.map(keyOf), specs }
}

function endHost(node: Node, begin: HostBeginCommand, keyOf: (operand: Operand) => string): HostEndCommand {
  const { call } = begin
  const specs = call.writes.map(({ index }) => node.outputs[index] ?? { shape: [], dtype: 'f32' as const })
  const info = infoOf(node, 'host call ends', specs.map(shortSpec).join(', '), bytesOf(specs))
  return { kind: 'host end', label: labelOf(node), info, begin, writes: call.writes.map(keyOf), specs }
}

const bytesOf = (specs: readonly Spec[]): number => specs.reduce((sum, spec) => sum + byteLength(spec), 0)

const infoOf = ({ name, scope }: Node, kernel: string, shapes: string, bytes: number): KernelInfo => {
  return { op: name, layer: scope, kernel, shapes, bytes, multiplyAdds: 0 }
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
    if (elements(spec.shape) % 4 !== 0 || !isFloat(spec)) throw new Error(`${label}: a mirror holds floats by fours`)
    const mirror = mirrorOf(spec)
    const known = latest.get(source)
    const isKept = known && (mirrorBytes(mirror) <= smallMirror || commands.length - known.usedAt <= nearCommands)
    const key = isKept ? known.key : `${source} mirror ${made++}`
    if (!isKept) {
      values.set(key, { key, spec, bytes, label: `${label} mirror`, mirror })
      const what = `mirror of ${label}`
      commands.push({ kind: 'mirror', label: what, info: copyInfo(what, bytes), from: source, to: key, bytes })
    }
    latest.set(source, { key, usedAt: commands.length })
    return key
  }
}

/** `4x33x33x64`, with the element type where that is not f32. */
const shortSpec = (spec: Spec | undefined): string =>
  spec ? `${spec.dtype === 'f32' ? '' : `${spec.dtype} `}${spec.shape.join('x') || 'scalar'}` : ''
