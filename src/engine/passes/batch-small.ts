import type { AdapterTraits } from '../adapter.js'
import { type Node, Tensor, type Trace, valueKey } from '../ir.js'
import { byteLength, sameShape } from '../shape.js'
import { type Moved, moveHandles } from './rewrite.js'

/** Larger calls gain nothing from company, and waiting for it would keep what they read. */
const maxBytes = 2 ** 18

/**
 * Joins small calls that follow one another and do not read each other, such as an optimizer's updates or the sums of two
 * passes' gradients, into one node each that does them in a single dispatch: starting a dispatch costs as much as updating
 * many parameters. On a CPU only updates in place, which every step has many of: its drivers take longer to compile a kernel
 * for each company than the dispatches take.
 */
export function batchSmall(
  trace: Trace,
  { maxStorageBuffers, software }: Pick<AdapterTraits, 'maxStorageBuffers' | 'software'>,
): Trace {
  const groups: Node[][] = []
  let open: Node[] = []
  const close = () => {
    if (open.length > 1) groups.push(open)
    open = []
  }
  for (const node of trace.nodes) {
    const reads = (member: Node) => node.inputs.some((value) => value.node.id === member.id)
    if (open.some(reads)) close()
    if (!isSmall(node) || (software && !updates(node))) continue
    const [first] = open
    const isAnother = first !== undefined && (first.op !== node.op || updates(first) !== updates(node))
    if (isAnother || open.some((member) => collide(member, node)) || buffersOf([...open, node]) > maxStorageBuffers)
      close()
    open.push(node)
  }
  close()
  return groups.length > 0 ? replaced(trace, groups) : trace
}

const isSmall = ({ op, attrs, inputs, outputs }: Node): boolean =>
  op?.batch?.fits({ inputs, outputs, attrs: attrs as never }) === true &&
  [...inputs, ...outputs].every((value) => byteLength(value) <= maxBytes)

const updates = ({ op, attrs }: Node): boolean => (op?.inplace?.(attrs as never).size ?? 0) > 0

/** Whether one reads or replaces what the other replaces: then their order matters. */
function collide(a: Node, b: Node): boolean {
  const inputs = (node: Node) => node.inputs.map(valueKey)
  const replacedBy = ({ op, attrs, inputs: own }: Node) =>
    [...(op?.inplace?.(attrs as never).values() ?? [])].flatMap((index) => (own[index] ? [valueKey(own[index])] : []))
  return replacedBy(a).some((key) => inputs(b).includes(key)) || replacedBy(b).some((key) => inputs(a).includes(key))
}

/** What a joined kernel binds: every input once, and the outputs that do not take over an input's place. */
function buffersOf(members: readonly Node[]): number {
  const inputs = new Set(members.flatMap((member) => member.inputs.map(valueKey)))
  const fresh = members.map(({ op, attrs, outputs }) => outputs.length - (op?.inplace?.(attrs as never).size ?? 0))
  return inputs.size + fresh.reduce((sum, count) => sum + count, 0)
}

/** Puts one node for each group at the place of its last member. */
function replaced(trace: Trace, groups: readonly (readonly Node[])[]): Trace {
  const moved = new Map<string, Tensor>()
  const joinedAt = new Map<number, Node>()
  const members = new Set<number>()
  let id = Math.max(...trace.nodes.map((node) => node.id))
  for (const group of groups) {
    const node = join(++id, group)
    let index = 0
    for (const member of group) {
      members.add(member.id)
      for (const [k, { shape, dtype }] of member.outputs.entries())
        moved.set(`${member.id}.${k}`, new Tensor(node, index++, shape, dtype))
    }
    joinedAt.set(group.at(-1)?.id ?? -1, node)
  }
  const nodes = trace.nodes.flatMap((node) => joinedAt.get(node.id) ?? (members.has(node.id) ? [] : [node]))
  return moveHandles({ ...trace, nodes }, moved satisfies Moved)
}

function join(id: number, group: readonly Node[]): Node {
  const inputs: Tensor[] = []
  const place = (value: Tensor): number => {
    const same = (other: Tensor) => valueKey(other) === valueKey(value) && sameShape(other.shape, value.shape)
    const known = inputs.findIndex(same)
    return known >= 0 ? known : inputs.push(value) - 1
  }
  const parts = group.map(({ attrs, inputs: own, outputs }) => ({
    attrs: attrs as never,
    inputs: own.map(place),
    outputs: outputs.length,
  }))
  const [first] = group
  if (!first?.op?.batch) throw new Error('unreachable: only what has a batch is grouped')
  const { op, attrs } = first.op.batch.join(parts)
  const outputs = group.flatMap((member) => member.outputs)
  return { ...first, id, op, name: `${first.name} ×${group.length}`, inputs, attrs, outputs }
}
