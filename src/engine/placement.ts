import { type Command, type CommandList, type CopyCommand, readsOf, writesOf } from './lower.js'

/** Where in the storage of another value a value lives. */
export interface Place {
  /** A value with storage of its own. */
  readonly root: string
  /** In bytes. */
  readonly offset: number
}

export interface Placement {
  /** Without the copies of values that live where they would be copied to. */
  readonly commands: readonly Command[]
  readonly placeOf: (key: string) => Place
}

/** Values that share storage, and when a command touches any of them. */
interface Block {
  readonly bytes: number
  readonly reads: Set<number>
  readonly writes: Set<number>
  /** The last command that touches it; none behind the last one where it must survive the program. */
  last: number
}

/**
 * Lets values that are copied into a range of another one live there from the start, and leaves the copies out. Nothing may
 * overwrite the range while either of the two is read, and no dispatch may read one and write the other: WebGPU forbids one
 * buffer as read and read-write in one dispatch, even at different places.
 *
 * @param list views included, see `CommandList`
 * @param commands those of the list, with the copies before updates in place
 * @param aliases values that take over the location of another one: output → input
 * @param join false: all copies stay
 */
export function placeValues(
  list: CommandList,
  commands: readonly Command[],
  aliases: ReadonlyMap<string, string>,
  join: boolean,
): Placement {
  const outer = new Map<string, Place>([...list.views].map(([key, { base, offset }]) => [key, { root: base, offset }]))
  for (const [output, input] of aliases) outer.set(output, { root: input, offset: 0 })
  const placeOf = (key: string): Place => {
    let place = { root: key, offset: 0 }
    for (let next = outer.get(key); next; next = outer.get(next.root))
      place = { root: next.root, offset: place.offset + next.offset }
    return place
  }
  if (!join) return { commands, placeOf }

  const fixed = new Set([...list.inputs.values(), ...list.variables.values()])
  const replacedBy = new Map([...aliases].map(([output, input]) => [input, output]))
  const firstWrite = new Map<string, number>()
  const blocks = blocksOf(list, commands, (key) => placeOf(key).root)
  for (const [i, command] of commands.entries())
    for (const key of writesOf(command)) if (!firstWrite.has(key)) firstWrite.set(key, i)

  /** When what takes over the storage of a value is written for the first time. */
  const overwrittenAt = (key: string): number => {
    const next = replacedBy.get(key)
    return next === undefined ? Number.POSITIVE_INFINITY : (firstWrite.get(next) ?? 0)
  }
  const joins = (command: CopyCommand, at: number): boolean => {
    const [inner, target] = [placeOf(command.from), placeOf(command.to)]
    const [block, around] = [blocks.get(inner.root), blocks.get(target.root)]
    if (!block || !around || block === around || fixed.has(inner.root)) return false
    // The value must be all of its block, and stay what it is.
    if (replacedBy.has(command.from) || block.bytes !== command.bytes) return false
    const offset = target.offset + command.toOffset
    if (offset % list.alignment !== 0) return false
    if (block.last >= overwrittenAt(target.root)) return false
    const crosses = (reads: ReadonlySet<number>, writes: ReadonlySet<number>) =>
      [...reads].some((i) => i !== at && writes.has(i))
    if (crosses(block.reads, around.writes) || crosses(around.reads, block.writes)) return false
    outer.set(inner.root, { root: target.root, offset })
    for (const i of block.reads) around.reads.add(i)
    for (const i of block.writes) around.writes.add(i)
    around.last = Math.max(around.last, block.last)
    blocks.delete(inner.root)
    return true
  }
  // Those before updates in place are there because both values are needed.
  const mayJoin = new Set(list.commands)
  const kept = commands.filter((command, i) => command.kind !== 'copy' || !mayJoin.has(command) || !joins(command, i))
  return { commands: kept, placeOf }
}

function blocksOf(
  list: CommandList,
  commands: readonly Command[],
  rootOf: (key: string) => string,
): Map<string, Block> {
  const blocks = new Map<string, Block>()
  const blockOf = (key: string): Block => {
    const root = rootOf(key)
    const known = blocks.get(root)
    if (known) return known
    const bytes = list.values.get(root)?.bytes ?? 0
    const block: Block = { bytes, reads: new Set(), writes: new Set(), last: -1 }
    blocks.set(root, block)
    return block
  }
  for (const [i, command] of commands.entries()) {
    for (const key of readsOf(command)) blockOf(key).reads.add(i)
    for (const key of writesOf(command)) blockOf(key).writes.add(i)
    for (const key of [...readsOf(command), ...writesOf(command)]) blockOf(key).last = i
  }
  for (const key of [...list.outputs.values(), ...list.assigned.values()]) blockOf(key).last = Number.POSITIVE_INFINITY
  return blocks
}
