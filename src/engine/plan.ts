import { assignBuffers, assignTextures, type BufferRange, type Interval, livePeak } from './buffers.js'
import {
  type Command,
  type CommandList,
  type CopyCommand,
  copyInfo,
  type InPlaceAlias,
  readsOf,
  writesOf,
} from './lower.js'
import { type Mirror, mirrorBytes } from './mirror.js'
import { placeValues } from './placement.js'
import type { ByteRange } from './ranges.js'
import type { Variable } from './store.js'

/** Where a value lives: a range of a buffer, or a texture. */
export type Location =
  | ({ readonly kind: 'buffer' } & BufferRange)
  | { readonly kind: 'texture'; readonly texture: number }
  | ({ readonly kind: 'input'; readonly name: string } & ByteRange)
  | ({ readonly kind: 'variable'; readonly variable: Variable } & ByteRange)

/** A variable that takes a value when the run ends. */
export interface VariableWrite {
  readonly from: string
  readonly variable: Variable
}

/** Commands with every value given a location. */
export interface Plan {
  readonly commands: readonly Command[]
  /** Behind the commands, in this order. */
  readonly variableWrites: readonly VariableWrite[]
  readonly locations: ReadonlyMap<string, Location>
  /** Where each output is found after the variables are written. */
  readonly outputs: ReadonlyMap<string, Location>
  /**
   * Bytes of each buffer, in which values lie side by side and one after the other. WebGPU forbids reading and writing
   * one buffer in the same dispatch, even at different places: such values lie in different buffers.
   */
  readonly buffers: readonly number[]
  /** Textures, each of which holds one mirror at a time. */
  readonly textures: readonly Mirror[]
  /** Bytes of all values that live in these buffers, without sharing. */
  readonly unsharedBytes: number
  /** The most bytes of such values that live at the same time: no plan for these commands can do with less. */
  readonly liveBytes: number
}

/**
 * Gives every value a location: inputs and variables have buffers of their own; the rest share buffers by their
 * lifetimes. Values that update another in place take over its location where that one is needed no more, and a copy is
 * inserted where it is. Values that are joined live within the result where they can.
 *
 * @param share false: every value has a buffer of its own
 */
export function plan(list: CommandList, share = true): Plan {
  const resolved = resolveInPlace(list)
  const { commands, placeOf } = placeValues(list, resolved.commands, resolved.aliases, share)
  const root = (key: string) => placeOf(key).root
  const bytesOf = (key: string) => {
    const value = list.values.get(key)
    return value?.mirror ? mirrorBytes(value.mirror) : (value?.bytes ?? 0)
  }
  const roots = new Map<string, Location>()
  for (const [name, key] of list.inputs) roots.set(key, { kind: 'input', name, offset: 0, bytes: bytesOf(key) })
  for (const [variable, key] of list.variables)
    roots.set(key, { kind: 'variable', variable, offset: 0, bytes: bytesOf(key) })

  // What the program delivers must survive until its end.
  const delivered = [...list.outputs.values(), ...list.assigned.values()].map(root)
  const intervals = intervalsOf(commands, root, bytesOf, new Set(delivered)).filter(({ key }) => !roots.has(key))
  const mirrorOf = (key: string) => list.values.get(key)?.mirror
  const layout = assignBuffers(
    intervals.filter(({ key }) => !mirrorOf(key)),
    share,
  )
  const textures = assignTextures(
    intervals.flatMap((interval) => {
      const mirror = mirrorOf(interval.key)
      return mirror ? { ...interval, mirror } : []
    }),
    share,
  )
  for (const [key, range] of layout.ranges) roots.set(key, { kind: 'buffer', ...range })
  for (const [key, texture] of textures.places) roots.set(key, { kind: 'texture', texture })
  const locations = new Map<string, Location>()
  for (const [key, { bytes }] of list.values) {
    const place = placeOf(key)
    const location = roots.get(place.root)
    if (!location) continue
    const within = location.kind === 'texture' ? {} : { offset: location.offset + place.offset, bytes }
    locations.set(key, { ...location, ...within })
  }
  const variableWrites = variableWritesOf(list, locations)
  const kept = keepOutputs(list, locations, variableWrites, layout.sizes.length)
  return {
    commands: [...commands, ...kept.commands],
    variableWrites,
    locations: new Map([...locations, ...kept.locations]),
    outputs: kept.outputs,
    textures: textures.mirrors,
    buffers: [...layout.sizes, ...kept.commands.map(({ bytes }) => bytes)],
    unsharedBytes: [...intervals, ...kept.commands].reduce((sum, { bytes }) => sum + bytes, 0),
    liveBytes: livePeak(intervals),
  }
}

/** Copies into the variables whose new value was computed elsewhere. */
function variableWritesOf(list: CommandList, locations: ReadonlyMap<string, Location>): VariableWrite[] {
  const fromBuffers: VariableWrite[] = []
  const fromVariables: VariableWrite[] = []
  const sources = new Set<Variable>()
  for (const [variable, from] of list.assigned) {
    const location = locations.get(from)
    if (location?.kind !== 'variable') fromBuffers.push({ from, variable })
    else if (location.variable !== variable) {
      fromVariables.push({ from, variable })
      sources.add(location.variable)
    }
  }
  // Variables are read before any is written; two that exchange their values would need a third buffer.
  for (const { variable } of fromVariables) {
    if (sources.has(variable)) throw new Error(`assign: '${variable.name}' is copied both from and to in one run`)
  }
  return [...fromVariables, ...fromBuffers]
}

/** Copies the outputs that live in variables which are written at the end: an output is a value of the run. */
function keepOutputs(
  list: CommandList,
  locations: ReadonlyMap<string, Location>,
  variableWrites: readonly VariableWrite[],
  firstBuffer: number,
): { commands: CopyCommand[]; locations: Map<string, Location>; outputs: Map<string, Location> } {
  const overwritten = new Set(variableWrites.map(({ variable }) => variable))
  const commands: CopyCommand[] = []
  const kept = new Map<string, Location>()
  const outputs = new Map<string, Location>()
  for (const [name, from] of list.outputs) {
    const location = locations.get(from)
    if (!location) throw new Error(`output '${name}' has no location`)
    const to = `${from} kept`
    const isOverwritten = location.kind === 'variable' && overwritten.has(location.variable)
    if (isOverwritten && !kept.has(to)) {
      const copy = copyCommand(list, 'copy of an output', from, to)
      kept.set(to, { kind: 'buffer', buffer: firstBuffer + commands.length, offset: 0, bytes: copy.bytes })
      commands.push(copy)
    }
    outputs.set(name, kept.get(to) ?? location)
  }
  return { commands, locations: kept, outputs }
}

const copyCommand = (list: CommandList, label: string, from: string, to: string): CopyCommand => {
  const bytes = list.values.get(from)?.bytes ?? 0
  return { kind: 'copy', label, info: copyInfo(label, bytes), from, to, fromOffset: 0, toOffset: 0, bytes }
}

/** Decides which values computed in place share the location of their input, and inserts copies before the others. */
function resolveInPlace(list: CommandList): { commands: Command[]; aliases: Map<string, string> } {
  // Who reads a view reads its base.
  const baseOf = (key: string) => list.views.get(key)?.base ?? key
  const lastRead = new Map<string, number>()
  for (const [i, command] of list.commands.entries()) for (const key of readsOf(command)) lastRead.set(baseOf(key), i)
  const variableOf = new Map([...list.variables].map(([variable, key]) => [key, variable]))
  const finalOf = new Map([...list.assigned].map(([variable, key]) => [key, variable]))
  const pinned = new Set([...list.outputs.values(), ...list.inputs.values()].map(baseOf))
  const assigned = new Set([...list.assigned.values()].map(baseOf))
  const endOf = chainEnds(list.inPlace)
  const aliases = new Map<string, string>()
  const lastAlias = new Map(list.inPlace.map((alias) => [alias.input, alias]))
  const startOf = (key: string): string => {
    const before = aliases.get(key)
    return before === undefined ? key : startOf(before)
  }

  const copiesAt = new Map<number, Command[]>()
  for (const { output, input, at } of list.inPlace) {
    const stillRead = (lastRead.get(input) ?? -1) >= at
    const variable = variableOf.get(startOf(input))
    // A variable's buffer may be overwritten only by what the variable will hold when the run ends.
    const foreign = variable !== undefined && finalOf.get(endOf(output)) !== variable
    const isDelivered = assigned.has(input) || pinned.has(input)
    // A command may update two copies of one value.
    const isTaken = lastAlias.get(input)?.output !== output
    if (stillRead || foreign || isDelivered || list.views.has(input) || isTaken) {
      const copy = copyCommand(list, 'copy before update in place', input, output)
      copiesAt.set(at, [...(copiesAt.get(at) ?? []), copy])
    } else {
      aliases.set(output, input)
    }
  }
  const commands = list.commands.flatMap((command, i) => [...(copiesAt.get(i) ?? []), command])
  return { commands, aliases }
}

/** Follows what is computed in place to the last value of a chain. */
function chainEnds(inPlace: readonly InPlaceAlias[]): (key: string) => string {
  const next = new Map(inPlace.map(({ output, input }) => [input, output]))
  return (key) => {
    let at = key
    for (let after = next.get(at); after !== undefined; after = next.get(at)) at = after
    return at
  }
}

/** The lifetime of each value together with those that share its location. */
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
