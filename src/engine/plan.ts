import type { Command, Listing, Takeover } from './lower.js'
import { assignSlots, type Interval, livePeak, type Place } from './slots.js'
import type { Variable } from './store.js'

/** Where a value lives. */
export type Home =
  | ({ readonly kind: 'slot' } & Place)
  | { readonly kind: 'input'; readonly name: string }
  | { readonly kind: 'variable'; readonly variable: Variable }

/** A variable that takes a value when the run ends. */
export interface Commit {
  readonly from: string
  readonly variable: Variable
}

/** Commands with every value given a home. */
export interface Plan {
  readonly commands: readonly Command[]
  readonly commits: readonly Commit[]
  readonly homes: ReadonlyMap<string, Home>
  /** Where each output is found after the commits. */
  readonly outputs: ReadonlyMap<string, Home>
  /**
   * Bytes of each slot, a buffer in which values lie side by side and one after the other. WebGPU forbids reading and
   * writing one buffer in the same dispatch, even at different places: such values have different slots.
   */
  readonly slots: readonly number[]
  /** Bytes of all values that live in slots, without sharing. */
  readonly unsharedBytes: number
  /** The most bytes of such values that live at the same time: no plan for these commands can do with less. */
  readonly liveBytes: number
}

/**
 * Gives every value a home: inputs and variables have buffers of their own; the rest share slots by their lifetimes.
 * Values that update another in place take over its home where that one is needed no more, and a copy is inserted
 * where it is.
 *
 * @param share false: every value has a slot of its own
 */
export function plan(listing: Listing, share = true): Plan {
  const { commands, aliases } = placeTakeovers(listing)
  const homes = new Map<string, Home>()
  for (const [name, key] of listing.inputs) homes.set(key, { kind: 'input', name })
  for (const [variable, key] of listing.variables) homes.set(key, { kind: 'variable', variable })

  const root = (key: string): string => {
    let at = key
    for (let next = aliases.get(at); next !== undefined; next = aliases.get(at)) at = next
    return at
  }
  // What the program delivers must survive until its end.
  const delivered = [...listing.outputs.values(), ...listing.assigned.values()].map(root)
  const bytesOf = (key: string) => listing.values.get(key)?.bytes ?? 0
  const intervals = intervalsOf(commands, root, bytesOf, new Set(delivered)).filter(({ key }) => !homes.has(key))
  const slots = assignSlots(intervals, share)
  for (const key of listing.values.keys()) {
    if (homes.has(key)) continue
    const base = root(key)
    const home = homes.get(base)
    const place = slots.places.get(base)
    if (home) homes.set(key, home)
    else if (place) homes.set(key, { kind: 'slot', ...place })
  }
  const commits = commitsOf(listing, homes)
  const kept = keepOutputs(listing, homes, commits, slots.sizes.length)
  return {
    commands: [...commands, ...kept.commands],
    commits,
    homes: new Map([...homes, ...kept.homes]),
    outputs: kept.outputs,
    slots: [...slots.sizes, ...kept.commands.map(({ bytes }) => bytes)],
    unsharedBytes: [...intervals, ...kept.commands].reduce((sum, { bytes }) => sum + bytes, 0),
    liveBytes: livePeak(intervals),
  }
}

/** Copies into the variables whose new value was computed elsewhere. */
function commitsOf(listing: Listing, homes: ReadonlyMap<string, Home>): Commit[] {
  const fromSlots: Commit[] = []
  const fromVariables: Commit[] = []
  const sources = new Set<Variable>()
  for (const [variable, from] of listing.assigned) {
    const home = homes.get(from)
    if (home?.kind !== 'variable') fromSlots.push({ from, variable })
    else if (home.variable !== variable) {
      fromVariables.push({ from, variable })
      sources.add(home.variable)
    }
  }
  // Variables are read before any is written; two that exchange their values would need a third buffer.
  for (const { variable } of fromVariables) {
    if (sources.has(variable)) throw new Error(`assign: '${variable.name}' is copied both from and to in one run`)
  }
  return [...fromVariables, ...fromSlots]
}

/** Copies the outputs that live in variables which a commit overwrites: an output is a value of the run. */
function keepOutputs(
  listing: Listing,
  homes: ReadonlyMap<string, Home>,
  commits: readonly Commit[],
  firstSlot: number,
): { commands: CopyCommand[]; homes: Map<string, Home>; outputs: Map<string, Home> } {
  const overwritten = new Set(commits.map(({ variable }) => variable))
  const commands: CopyCommand[] = []
  const kept = new Map<string, Home>()
  const outputs = new Map<string, Home>()
  for (const [name, from] of listing.outputs) {
    const home = homes.get(from)
    if (!home) throw new Error(`output '${name}' has no home`)
    const to = `${from} kept`
    const isOverwritten = home.kind === 'variable' && overwritten.has(home.variable)
    if (isOverwritten && !kept.has(to)) {
      const copy = copyCommand(listing, 'copy of an output', from, to)
      kept.set(to, { kind: 'slot', slot: firstSlot + commands.length, offset: 0, bytes: copy.bytes })
      commands.push(copy)
    }
    outputs.set(name, kept.get(to) ?? home)
  }
  return { commands, homes: kept, outputs }
}

type CopyCommand = Command & { kind: 'copy' }

const copyCommand = (listing: Listing, label: string, from: string, to: string): CopyCommand => ({
  kind: 'copy',
  label,
  from,
  to,
  bytes: listing.values.get(from)?.bytes ?? 0,
})

/** Decides which takeovers share a home with their input, and inserts copies before the others. */
function placeTakeovers(listing: Listing): { commands: Command[]; aliases: Map<string, string> } {
  const lastRead = new Map<string, number>()
  for (const [i, command] of listing.commands.entries()) for (const key of readsOf(command)) lastRead.set(key, i)
  const variableOf = new Map([...listing.variables].map(([variable, key]) => [key, variable]))
  const finalOf = new Map([...listing.assigned].map(([variable, key]) => [key, variable]))
  const pinned = new Set([...listing.outputs.values(), ...listing.inputs.values()])
  const endOf = chainEnds(listing.takeovers)
  const aliases = new Map<string, string>()
  const lastTakeover = new Map(listing.takeovers.map(({ input, at }) => [input, at]))
  const startOf = (key: string): string => {
    const before = aliases.get(key)
    return before === undefined ? key : startOf(before)
  }

  const copiesAt = new Map<number, Command[]>()
  for (const { output, input, at } of listing.takeovers) {
    const stillRead = (lastRead.get(input) ?? -1) >= at
    const variable = variableOf.get(startOf(input))
    // A variable's buffer may be overwritten only by what the variable will hold when the run ends.
    const foreign = variable !== undefined && finalOf.get(endOf(output)) !== variable
    const assignedElsewhere = finalOf.has(input)
    if (stillRead || foreign || assignedElsewhere || pinned.has(input) || lastTakeover.get(input) !== at) {
      const copy = copyCommand(listing, 'copy before update in place', input, output)
      copiesAt.set(at, [...(copiesAt.get(at) ?? []), copy])
    } else {
      aliases.set(output, input)
    }
  }
  const commands = listing.commands.flatMap((command, i) => [...(copiesAt.get(i) ?? []), command])
  return { commands, aliases }
}

/** Follows takeovers to the last value of a chain. */
function chainEnds(takeovers: readonly Takeover[]): (key: string) => string {
  const next = new Map(takeovers.map(({ output, input }) => [input, output]))
  return (key) => {
    let at = key
    for (let after = next.get(at); after !== undefined; after = next.get(at)) at = after
    return at
  }
}

const readsOf = (command: Command): readonly string[] => (command.kind === 'copy' ? [command.from] : command.reads)
const writesOf = (command: Command): readonly string[] => (command.kind === 'copy' ? [command.to] : command.writes)

/** The lifetime of each value together with those that share its home. */
function intervalsOf(
  commands: readonly Command[],
  root: (key: string) => string,
  bytesOf: (key: string) => number,
  delivered: ReadonlySet<string>,
): Interval[] {
  const lives = new Map<string, { first: number; last: number; apart: Set<string> }>()
  for (const [i, command] of commands.entries()) {
    const [reads, writes] = [readsOf(command).map(root), writesOf(command).map(root)]
    for (const key of [...reads, ...writes]) {
      const life = lives.get(key) ?? { first: i, last: i, apart: new Set() }
      life.last = i
      lives.set(key, life)
    }
    for (const read of reads) for (const written of writes) lives.get(read)?.apart.add(written)
    for (const written of writes) for (const read of reads) lives.get(written)?.apart.add(read)
  }
  return [...lives].map(([key, { first, last, apart }]) => {
    return { key, first, last: delivered.has(key) ? commands.length : last, apart, bytes: bytesOf(key) }
  })
}
