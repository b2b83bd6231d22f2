// What a plan promises: no value is overwritten while it is needed.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, traceOf, tracing } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { type Command, type CommandList, type CopyCommand, lower, readsOf, writesOf } from '#dist/engine/lower.js'
import { dropDead } from '#dist/engine/passes/drop-dead.js'
import { updateEarly } from '#dist/engine/passes/update-early.js'
import { type Location, type Plan, plan } from '#dist/engine/plan.js'
import { type Spec, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import { Random } from '../../cases/case.js'
import { onDevice } from '../support/on-device.js'
import { randomProgram } from '../support/random-program.js'

const { deviceTest } = await onDevice()

/** A range of a buffer. */
interface Range {
  readonly buffer: string
  readonly offset: number
  readonly bytes: number
}

const rangeOf = (location: Location): Range => {
  if (location.kind === 'texture') return { buffer: `texture ${location.texture}`, offset: 0, bytes: 1 }
  const { offset, bytes } = location
  if (location.kind === 'buffer') return { buffer: `buffer ${location.buffer}`, offset, bytes }
  return {
    buffer: location.kind === 'input' ? `input ${location.name}` : `variable ${location.variable.name}`,
    offset,
    bytes,
  }
}

const overlapping = (a: Range, b: Range): boolean =>
  a.buffer === b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes

/** A name for every byte of every value: views have bytes of their base, joined values those of their parts, or zeros. */
function contents(list: CommandList): (key: string) => readonly string[] {
  const known = new Map<string, readonly string[]>()
  const joined = new Map<string, Command[]>()
  const mirrored = new Map<string, string>()
  for (const command of list.commands) {
    if (command.kind === 'mirror') mirrored.set(command.to, command.from)
    if (command.kind === 'copy' || command.kind === 'clear')
      joined.set(command.to, [...(joined.get(command.to) ?? []), command])
  }
  const made = (key: string): readonly string[] => {
    const bytes = list.values.get(key)?.bytes ?? 0
    const view = list.views.get(key)
    if (view) return of(view.base).slice(view.offset, view.offset + bytes)
    const source = mirrored.get(key)
    if (source !== undefined) return of(source)
    const parts = joined.get(key)
    if (!parts) return Array.from({ length: bytes }, (_, i) => `${key}[${i}]`)
    const whole: string[] = Array(bytes).fill('undefined')
    for (const part of parts) {
      if (part.kind === 'copy') for (const [i, byte] of rangeFrom(part).entries()) whole[part.toOffset + i] = byte
      if (part.kind === 'clear') whole.fill('0', part.toOffset, part.toOffset + part.bytes)
    }
    return whole
  }
  const rangeFrom = ({ from, fromOffset, bytes }: CopyCommand) => of(from).slice(fromOffset, fromOffset + bytes)
  const of = (key: string): readonly string[] => {
    const value = known.get(key) ?? made(key)
    known.set(key, value)
    return value
  }
  return of
}

/**
 * Executes a plan with names instead of numbers, byte by byte. Throws where a command would find other bytes than those of
 * the value that it reads, or would bind a buffer in a way that WebGPU forbids.
 */
function simulate(list: CommandList, { commands, variableWrites, locations, outputs }: Plan): void {
  const locationOf = (key: string): Range => {
    const location = locations.get(key)
    if (!location) throw new Error(`${key} has no location`)
    return rangeOf(location)
  }
  const bytesOf = contents(list)
  const memory = new Map<string, string[]>()
  const write = ({ buffer, offset }: Range, bytes: readonly string[]) => {
    const data = memory.get(buffer) ?? []
    memory.set(buffer, data)
    for (const [i, byte] of bytes.entries()) data[offset + i] = byte
  }
  const expectAt = ({ buffer, offset }: Range, key: string, what: string) => {
    const data = memory.get(buffer) ?? []
    const wrong = bytesOf(key).findIndex((byte, i) => data[offset + i] !== byte)
    if (wrong >= 0) throw new Error(`${what}: byte ${wrong} of ${key} in ${buffer} is ${data[offset + wrong]}`)
  }
  for (const key of [...list.inputs.values(), ...list.variables.values()]) write(locationOf(key), bytesOf(key))
  const inPlace = new Map(list.inPlace.map(({ output, input }) => [output, input]))
  const written = new Set<string>()
  for (const command of commands) {
    const what = command.label
    if (command.kind === 'host begin' || command.kind === 'host end') {
      for (const key of readsOf(command)) expectAt(locationOf(key), key, what)
      for (const key of writesOf(command)) write(locationOf(key), bytesOf(key))
      continue
    }
    if (command.kind !== 'dispatch') {
      const to = locationOf(command.to)
      if (command.kind === 'clear') {
        write({ ...to, offset: to.offset + command.toOffset }, Array(command.bytes).fill('0'))
        continue
      }
      expectAt(locationOf(command.from), command.from, what)
      assert.is.not(locationOf(command.from).buffer, to.buffer)
      const { fromOffset, toOffset } = { fromOffset: 0, toOffset: 0, ...command }
      const bytes = bytesOf(command.from).slice(fromOffset, fromOffset + command.bytes)
      write({ ...to, offset: to.offset + toOffset }, bytes)
      continue
    }
    for (const key of command.reads) expectAt(locationOf(key), key, what)
    for (const key of command.writes) {
      const before = inPlace.get(key)
      if (before !== undefined && !written.has(key)) expectAt(locationOf(key), before, `${what} in place`)
    }
    const bound = command.writes.map(locationOf)
    for (const { offset } of [...bound, ...command.reads.map(locationOf)]) assert.is(offset % list.alignment, 0)
    const read = new Set(command.reads.map((key) => locationOf(key).buffer))
    assert.not.ok(
      bound.some((range, i) => read.has(range.buffer) || bound.slice(i + 1).some((b) => overlapping(range, b))),
    )
    for (const key of command.writes) {
      write(locationOf(key), bytesOf(key))
      written.add(key)
    }
  }
  const atVariable = ({ name }: Variable): Range => ({ buffer: `variable ${name}`, offset: 0, bytes: 4 })
  for (const { from, variable } of variableWrites) {
    expectAt(locationOf(from), from, `write of ${variable.name}`)
    write(atVariable(variable), bytesOf(from))
  }
  for (const [variable, before] of list.variables) {
    expectAt(atVariable(variable), list.assigned.get(variable) ?? before, 'at the end')
  }
  for (const [variable, key] of list.assigned) expectAt(atVariable(variable), key, 'at the end')
  for (const [name, key] of list.outputs) {
    const location = outputs.get(name)
    if (!location) throw new Error(`output ${name} has no location`)
    expectAt(rangeOf(location), key, `output ${name}`)
  }
}

/**
 * The list with values of many sizes. What takes over a buffer has the size of what was there; views, and what is joined,
 * keep theirs.
 */
function withRandomSizes(list: CommandList, random: Random): CommandList {
  const fixed = new Set([...list.views].flatMap(([key, { base }]) => [key, base]))
  for (const command of list.commands) {
    if (command.kind === 'copy') fixed.add(command.from)
    if (command.kind !== 'dispatch') for (const key of writesOf(command)) fixed.add(key)
  }
  // Chains of updates in place are of one size.
  for (let changed = true; changed; ) {
    const before = fixed.size
    for (const { output, input } of list.inPlace) {
      if (fixed.has(output)) fixed.add(input)
      if (fixed.has(input)) fixed.add(output)
    }
    changed = fixed.size > before
  }
  const sizes = new Map(
    [...list.values].map(([key, { bytes }]) => [key, fixed.has(key) ? bytes : 100 * (1 + random.integer(20))]),
  )
  for (const { output, input } of list.inPlace) sizes.set(output, sizes.get(input) ?? 0)
  const values = [...list.values].map(([key, value]) => [key, { ...value, bytes: sizes.get(key) ?? 0 }] as const)
  return { ...list, values: new Map(values) }
}

/** Of all vectors: their halves are views wherever offsets are multiples of 256 bytes. */
const extent = 128

function trace(
  names: readonly string[],
  body: (inputs: Tensor[]) => Record<string, Tensor>,
  shape: Spec = spec([extent]),
) {
  const graph = new Graph()
  const inputs = names.map((name) => graph.input(name, shape))
  const outputs = tracing(graph, () => body(inputs))
  return dropDead(traceOf(graph, new Map(Object.entries(outputs))))
}

deviceTest('no plan lets a value be overwritten while it is needed', async (device) => {
  const variables = ['u', 'v', 'w'].map((name) => new Store(device, name).declare(name, spec([extent])))
  const found = {
    copied: 0,
    aliased: 0,
    joined: 0,
    partsCopied: 0,
    rangesCopied: 0,
    viewed: 0,
    shared: 0,
    sideBySide: 0,
  }
  let refused = 0
  for (let seed = 0; seed < 400; seed++) {
    const random = new Random(`plan ${seed}`)
    const traced = trace(['x', 'y'], (inputs) => randomProgram(random, variables, inputs))
    const ordered = seed % 2 === 0 ? traced : updateEarly(traced)
    // What is too large to be bound is copied at any offset.
    const traits = seed % 3 === 0 ? { ...device.traits, maxBinding: 200 } : device.traits
    const list = withRandomSizes(await lower(ordered, traits, (_, candidates) => candidates[0]), random)
    for (const share of [true, false]) {
      let planned: Plan
      try {
        planned = plan(list, share)
      } catch (error) {
        // Variables that exchange their values are refused, not computed wrongly.
        assert.match(String(error), /copied both from and to/)
        refused++
        continue
      }
      simulate(list, planned)
      const copies = planned.commands.filter((command) => command.kind === 'copy')
      const before = copies.filter(({ label }) => label === 'copy before update in place').length
      const parts = (commands: readonly Command[]) =>
        commands.filter(({ kind, label }) => kind === 'copy' && !label.startsWith('copy')).length
      found.copied += before
      found.aliased += list.inPlace.length - before
      found.joined += parts(list.commands) - parts(planned.commands)
      found.partsCopied += parts(planned.commands)
      found.viewed += list.views.size
      found.rangesCopied += list.commands.filter((command) => command.kind === 'copy' && command.fromOffset > 0).length
      if (share && planned.buffers.reduce((total, bytes) => total + bytes, 0) < planned.unsharedBytes) found.shared++
      found.sideBySide += [...planned.locations.values()].filter(
        (location) => location.kind === 'buffer' && location.offset > 0,
      ).length
    }
  }
  // The programs must have exercised what is checked.
  assert.ok(refused < 200, `${refused} refused`)
  for (const [what, count] of Object.entries(found)) assert.ok(count > 50, `${what}: ${count}`)
})

test.run()
