// What a plan promises: no value is overwritten while it is needed.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, traceOf, tracing } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { type Command, type CommandList, lower } from '#dist/engine/lower.js'
import { dropDead } from '#dist/engine/passes/rewrite.js'
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
  if (location.kind === 'buffer')
    return { buffer: `buffer ${location.buffer}`, offset: location.offset, bytes: location.bytes }
  if (location.kind === 'texture') return { buffer: `texture ${location.texture}`, offset: 0, bytes: 1 }
  const buffer = location.kind === 'input' ? `input ${location.name}` : `variable ${location.variable.name}`
  return { buffer, offset: 0, bytes: Number.POSITIVE_INFINITY }
}

const overlapping = (a: Range, b: Range): boolean =>
  a.buffer === b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes

/**
 * Executes a plan with names instead of numbers: each range of a buffer holds the key of the value that was last
 * written to it. Throws where a command would find another value than the one it reads, or would bind a buffer in a way
 * that WebGPU forbids.
 */
function simulate(list: CommandList, { commands, variableWrites, locations, outputs }: Plan): void {
  const locationOf = (key: string): Range => {
    const location = locations.get(key)
    if (!location) throw new Error(`${key} has no location`)
    return rangeOf(location)
  }
  let content: { range: Range; key: string }[] = []
  const write = (range: Range, key: string) => {
    content = [...content.filter((other) => !overlapping(other.range, range)), { range, key }]
  }
  const expectAt = (range: Range, key: string, what: string) => {
    const found = content.filter((other) => overlapping(other.range, range)).map((other) => other.key)
    if (found.join() !== key) throw new Error(`${what}: ${range.buffer} at ${range.offset} holds ${found}, not ${key}`)
  }
  for (const key of [...list.inputs.values(), ...list.variables.values()]) write(locationOf(key), key)
  const inPlace = new Map(list.inPlace.map(({ output, input }) => [output, input]))
  const written = new Set<string>()
  for (const command of commands) {
    const what = command.label
    if (command.kind !== 'dispatch') {
      expectAt(locationOf(command.from), command.from, what)
      assert.is.not(locationOf(command.from).buffer, locationOf(command.to).buffer)
      write(locationOf(command.to), command.kind === 'mirror' ? command.to : command.from)
      continue
    }
    for (const key of command.reads) expectAt(locationOf(key), key, what)
    for (const key of command.writes) {
      const before = inPlace.get(key)
      if (before !== undefined && !written.has(key)) expectAt(locationOf(key), before, `${what} in place`)
    }
    const bound = command.writes.map(locationOf)
    const read = new Set(command.reads.map((key) => locationOf(key).buffer))
    assert.not.ok(
      bound.some((range, i) => read.has(range.buffer) || bound.slice(i + 1).some((b) => overlapping(range, b))),
    )
    for (const key of command.writes) {
      write(locationOf(key), key)
      written.add(key)
    }
  }
  const atVariable = ({ name }: Variable): Range => ({ buffer: `variable ${name}`, offset: 0, bytes: 4 })
  for (const { from, variable } of variableWrites) {
    expectAt(locationOf(from), from, `write of ${variable.name}`)
    write(atVariable(variable), from)
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

/** The list with values of many sizes; what takes over a buffer has the size of what was there. */
function withRandomSizes(list: CommandList, random: Random): CommandList {
  const sizes = new Map([...list.values.keys()].map((key) => [key, 100 * (1 + random.integer(20))]))
  for (const { output, input } of list.inPlace) sizes.set(output, sizes.get(input) ?? 0)
  const values = [...list.values].map(([key, value]) => [key, { ...value, bytes: sizes.get(key) ?? 0 }] as const)
  return { ...list, values: new Map(values) }
}

function trace(names: readonly string[], body: (inputs: Tensor[]) => Record<string, Tensor>, shape: Spec = spec([4])) {
  const graph = new Graph()
  const inputs = names.map((name) => graph.input(name, shape))
  const outputs = tracing(graph, () => body(inputs))
  return dropDead(traceOf(graph, new Map(Object.entries(outputs))))
}

deviceTest('no plan lets a value be overwritten while it is needed', async (device) => {
  const variables = ['u', 'v', 'w'].map((name) => new Store(device, name).declare(name, spec([4])))
  let copies = 0
  let aliased = 0
  let shared = 0
  let sideBySide = 0
  let refused = 0
  for (let seed = 0; seed < 400; seed++) {
    const random = new Random(`plan ${seed}`)
    const traced = trace(['x', 'y'], (inputs) => randomProgram(random, variables, inputs))
    const ordered = seed % 2 === 0 ? traced : updateEarly(traced)
    const list = withRandomSizes(
      lower(ordered, device.traits, (_, candidates) => candidates[0]),
      random,
    )
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
      const isCopy = (command: Command) => command.kind === 'copy'
      copies += planned.commands.filter(isCopy).length
      aliased += list.inPlace.length - planned.commands.filter(isCopy).length
      if (share && planned.buffers.reduce((total, bytes) => total + bytes, 0) < planned.unsharedBytes) shared++
      sideBySide += [...planned.locations.values()].filter(
        (location) => location.kind === 'buffer' && location.offset > 0,
      ).length
    }
  }
  // The programs must have exercised what is checked.
  assert.ok(copies > 20 && aliased > 20 && shared > 100 && refused < 200, `${copies} ${aliased} ${shared} ${refused}`)
  assert.ok(sideBySide > 100, `${sideBySide} values beside others`)
})

test.run()
