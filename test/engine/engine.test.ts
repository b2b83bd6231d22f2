// The engine below the operators: planning, fusion, state, errors, determinism.
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { applyOne, assign, Graph, read, scoped, traceOf, tracing } from '#dist/engine/graph.js'
import { defineOp, type Tensor } from '#dist/engine/ir.js'
import { type Candidate, inputBuffer, outputBuffer } from '#dist/engine/kernel.js'
import { type Command, type CommandList, lower } from '#dist/engine/lower.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { dropDead } from '#dist/engine/passes/rewrite.js'
import { updateEarly } from '#dist/engine/passes/update-early.js'
import { type Location, type Plan, plan } from '#dist/engine/plan.js'
import { compile } from '#dist/engine/program.js'
import { specialize } from '#dist/engine/shader.js'
import { elements, type Spec, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { ohemCrossEntropy } from '#dist/kernels/loss.js'
import { concat } from '#dist/kernels/movement.js'
import { add, fill, mul, relu, scale, sub, sum, sumTo } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { sgd } from '#dist/kernels/update.js'
import { Random } from '../../cases/case.js'
import { skipUnless } from '../support/skip.js'

const available = (await findAdapters()).length > 0
const opened = available ? await open() : undefined
const register = skipUnless(available, 'there is no WebGPU adapter')

/** A test that gets the device. */
const deviceTest = (name: string, body: (device: Device) => Promise<void>): void =>
  register(name, async () => {
    if (!opened) throw new Error('unreachable: the test is skipped without a device')
    await body(opened)
  })

/** The message of what `body` throws. */
async function messageOf(body: () => unknown): Promise<string> {
  try {
    await body()
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  throw new Error('nothing was thrown')
}

const ramp = (count: number, start = 1): Float32Array => Float32Array.from({ length: count }, (_, i) => start + i)

// Planning

/** A random program over vectors: several readers per value, values that die at once, updates in place, state. */
function randomProgram(
  random: Random,
  variables: readonly Variable[],
  inputs: readonly Tensor[],
): Record<string, Tensor> {
  const pool: Tensor[] = [...inputs]
  const any = (): Tensor => {
    const found = pool[random.integer(pool.length)]
    if (!found) throw new Error('the pool is empty')
    return found
  }
  // What updates in place keeps its operands, so that the planner has to copy some of them.
  const steps: (() => Tensor[])[] = [
    () => [add(any(), any())],
    () => [relu(sub(any(), any()))],
    () => [scale(any(), 0.5)],
    () => [mul(any(), sumTo(any(), [1]))],
    () =>
      [concat([any(), any()], 0)]
        .map((pair) => sub(pair, pair))
        .map((pair) => sum(pair))
        .map((s) => add(any(), s)),
    () => {
      const parameter = any()
      const velocity = any()
      if (parameter.node === velocity.node) return []
      const updated = sgd({ parameter, velocity, gradient: any(), learningRate: fill([], 0.1) })
      return [updated.parameter, updated.velocity]
    },
    () =>
      variables.slice(0, 1).flatMap(() => {
        const variable = variables[random.integer(variables.length)]
        return variable ? [read(variable)] : []
      }),
    () => {
      const variable = variables[random.integer(variables.length)]
      if (variable) assign(variable, add(any(), fill([], random.integer(3))))
      return []
    },
  ]
  for (let k = 0; k < 24; k++) pool.push(...(steps[random.integer(steps.length)]?.() ?? []))
  return { a: any(), b: any(), c: pool.at(-1) ?? any() }
}

/** A range of a buffer. */
interface Range {
  readonly buffer: string
  readonly offset: number
  readonly bytes: number
}

const rangeOf = (location: Location): Range => {
  if (location.kind === 'buffer')
    return { buffer: `buffer ${location.buffer}`, offset: location.offset, bytes: location.bytes }
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
    if (command.kind === 'copy') {
      expectAt(locationOf(command.from), command.from, what)
      assert.is.not(locationOf(command.from).buffer, locationOf(command.to).buffer)
      write(locationOf(command.to), command.from)
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

deviceTest('random programs give the same numbers with and without optimisation', async (device) => {
  for (let seed = 0; seed < 12; seed++) {
    const results: Float32Array[][] = []
    for (const optimize of [true, false]) {
      const random = new Random(`run ${seed}`)
      const store = new Store(device, 'state')
      const variables = ['u', 'v'].map((name, i) => store.declare(name, spec([4]), ramp(4, i)))
      const build = () =>
        compile(
          device,
          { x: spec([4]), y: spec([4]) },
          ({ x, y }) => randomProgram(random, variables, [x, y]) as Record<'a' | 'b' | 'c', Tensor>,
          { optimize },
        )
      let program: Awaited<ReturnType<typeof build>>
      try {
        program = await build()
      } catch (error) {
        assert.match(String(error), /copied both from and to/)
        continue
      }
      for (let k = 0; k < 2; k++) program.run({ x: ramp(4), y: ramp(4, -2) })
      const [a, b, c] = [await program.read('a'), await program.read('b'), await program.read('c')]
      const state = await store.readAll()
      results.push([a, b, c, ...[...state.values()].map((data) => Float32Array.from(data))])
      program.destroy()
      store.destroy()
    }
    const [optimized = [], naive = []] = results
    for (const [i, list] of optimized.entries()) {
      for (const [k, value] of list.entries()) {
        const other = naive[i]?.[k] ?? Number.NaN
        const close = Object.is(value, other) || Math.abs(value - other) <= 1e-5 * Math.max(1, Math.abs(other))
        assert.ok(close, `seed ${seed}, result ${i}: ${list} and ${naive[i]}`)
      }
    }
  }
})

deviceTest('values with disjoint lifetimes share buffers', async (device) => {
  const body = ({ x }: { x: Tensor }) => {
    let y = x
    for (let k = 0; k < 8; k++) y = softmax(y)
    return { y }
  }
  const program = await compile(device, { x: spec([32, 32]) }, body)
  const naive = await compile(device, { x: spec([32, 32]) }, body, { optimize: false })
  assert.ok(program.memory.planned <= 4 * 4096, `${program.memory.planned} bytes planned`)
  assert.ok(program.memory.unshared > 8 * 4096 - 1, `${program.memory.unshared} bytes without sharing`)
  assert.is(naive.memory.planned, naive.memory.unshared)
})

// Rewriting

deviceTest('a chain of pointwise operators is one dispatch', async (device) => {
  const inputs = { x: spec([2, 3, 5, 7]), b: spec([7]) }
  const program = await compile(device, inputs, ({ x, b }) => ({ y: relu(add(mul(x, b), scale(x, 0.5))) }))
  assert.is(program.kernels.length, 1)
  program.run({ x: new Float32Array(210).fill(2), b: new Float32Array(7).fill(3) })
  assert.equal(await program.read('y'), new Float32Array(210).fill(7))
})

deviceTest('a sum computes the chain before it', async (device) => {
  const inputs = { x: spec([3, 5]), y: spec([3, 5]) }
  const program = await compile(device, inputs, ({ x, y }) => ({ total: sum(relu(mul(x, y))) }))
  assert.equal(program.kernels, ['sum'])
  program.run({ x: ramp(15), y: new Float32Array(15).fill(2) })
  assert.equal(await program.read('total'), Float32Array.of(240))
})

deviceTest('a value is computed in each of its readers where that moves fewer bytes', async (device) => {
  const cheap = await compile(device, { x: spec([5]) }, ({ x }) => {
    const y = scale(x, 2)
    return { a: sum(y), b: mul(y, y) }
  })
  assert.is(cheap.kernels.length, 2)
  const inputs = { x: spec([5]), y: spec([5]), z: spec([5]) }
  // Three readers would load nine tensors; stored, the value costs three loads, a store and three loads.
  const dear = await compile(device, inputs, ({ x, y, z }) => {
    const product = mul(mul(x, y), z)
    return { a: scale(product, 2), b: relu(product), c: sum(product) }
  })
  assert.equal(dear.kernels, ['mul', 'scale', 'relu', 'sum'])
  dear.run({ x: ramp(5, -2), y: ramp(5), z: ramp(5, 1) })
  assert.equal(await dear.read('a'), Float32Array.of(-4, -8, 0, 32, 100))
  assert.equal(await dear.read('c'), Float32Array.of(60))
})

deviceTest('a value that is stored is computed again only where nothing more is loaded for it', async (device) => {
  const program = await compile(device, { x: spec([2, 3]) }, ({ x }) => {
    const y = scale(x, 2)
    return { probability: softmax(y), difference: sub(y, x), positive: relu(y) }
  })
  const loads = program.nodes.flatMap(({ op, inputs }) => (op ? [inputs.map(({ node }) => node.name)] : []))
  assert.equal(loads, [['input x'], ['scale'], ['input x'], ['scale']])
  program.run({ x: ramp(6, -2) })
  assert.equal(await program.read('difference'), ramp(6, -2))
  assert.equal(await program.read('positive'), Float32Array.of(0, 0, 0, 2, 4, 6))
})

deviceTest('producers write into a concatenation, and what is read elsewhere too is copied there', async (device) => {
  for (const [axis, shapes] of [
    [
      2,
      [
        [2, 3, 4],
        [2, 3, 8],
        [2, 3, 5],
      ],
    ],
    [
      0,
      [
        [1, 3, 4],
        [2, 3, 4],
        [3, 3, 4],
      ],
    ],
  ] as const) {
    const inputs = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, spec(shape)]))
    const body = (tensors: Record<string, Tensor>) => {
      const [a, b, c] = [tensors.x0 as Tensor, tensors.x1 as Tensor, tensors.x2 as Tensor]
      const shared = scale(b, 3)
      return { y: concat([relu(a), shared, add(c, c)], axis), shared: softmax(shared) }
    }
    const data = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, ramp(elements(shape), -2 - i)]))
    const results: Float32Array[] = []
    for (const optimize of [true, false]) {
      const program = await compile(device, inputs, body, { optimize })
      if (optimize) assert.is(program.kernels.length, 5, program.kernels.join())
      program.run(data)
      results.push(await program.read('y'))
      program.destroy()
    }
    assert.equal(results[0], results[1])
  }
})

deviceTest('a value with a name of its own is stored', async (device) => {
  const named = await compile(device, { x: spec([5]) }, ({ x }) => {
    const y = scale(x, 2)
    return { y, z: relu(y) }
  })
  assert.is(named.kernels.length, 2)
  named.run({ x: ramp(5, -2) })
  assert.equal(await named.read('y'), Float32Array.of(-4, -2, 0, 2, 4))
  assert.equal(await named.read('z'), Float32Array.of(0, 0, 0, 2, 4))
})

deviceTest('an absorbed operand of an update in place leaves the other operands where they were', async (device) => {
  // More than one workgroup, so that one which starts late finds what the others have written.
  const count = 50000
  const shape = spec([count])
  for (const which of [['parameter'], ['velocity'], ['gradient'], ['parameter', 'velocity']] as const) {
    const program = await compile(
      device,
      { parameter: shape, velocity: shape, gradient: shape, learningRate: spec([]) },
      (t) => {
        const scaled = Object.fromEntries(which.map((name) => [name, scale(t[name], 2)]))
        return { ...sgd({ ...t, ...scaled }, { momentum: 0.5, weightDecay: 0 }) }
      },
    )
    const data = { parameter: 100, velocity: 10, gradient: 1 }
    program.run({
      parameter: new Float32Array(count).fill(data.parameter),
      velocity: new Float32Array(count).fill(data.velocity),
      gradient: new Float32Array(count).fill(data.gradient),
      learningRate: Float32Array.of(1),
    })
    const scaled = { ...data, ...Object.fromEntries(which.map((name) => [name, data[name] * 2])) }
    const velocity = 0.5 * scaled.velocity + scaled.gradient
    assert.equal([...new Set(await program.read('velocity'))], [velocity], which.join())
    assert.equal([...new Set(await program.read('parameter'))], [scaled.parameter - velocity], which.join())
  }
})

deviceTest('equal calls run once, and what nothing needs does not run', async (device) => {
  const program = await compile(device, { x: spec([5]), w: spec([3, 3]) }, ({ x, w }) => {
    sum(w)
    return { y: add(sum(x), mul(sum(x), sum(x))) }
  })
  assert.equal(program.kernels, ['sum', 'add'])
  const naive = await compile(device, { x: spec([5]) }, ({ x }) => ({ y: add(sum(x), sum(x)) }), { optimize: false })
  assert.equal(naive.kernels, ['sum', 'sum', 'add'])
  const different = await compile(device, { x: spec([4]) }, ({ x }) => ({ a: scale(x, 2), b: scale(x, 3) }))
  assert.is(different.kernels.length, 2)
})

deviceTest('gradients that nobody asked for are not computed', async (device) => {
  const inputs = { x: spec([1, 5, 5, 3]), w: spec([3, 3, 3, 4]) }
  const program = await compile(device, inputs, ({ x, w }) => {
    const [gradient] = grad(sum(conv2d(x, w)), [w])
    if (!gradient) throw new Error('grad gave nothing')
    return { gradient }
  })
  const names = program.nodes.map(({ name }) => name)
  assert.ok(names.includes('conv2dWeightGrad'))
  assert.not(names.includes('conv2dInputGrad'))
  assert.not(names.includes('conv2d'))
})

deviceTest(
  'no gradient passes a detached value; a target that the loss does not depend on gets zeros',
  async (device) => {
    const inputs = { x: spec([3]), z: spec([3]) }
    const program = await compile(device, inputs, ({ x, z }) => {
      const [dx, dz] = grad(sum(mul(x, scale(x, 3).detach())), [x, z])
      if (!dx || !dz) throw new Error('grad gave nothing')
      return { dx, dz }
    })
    program.run({ x: ramp(3), z: ramp(3) })
    assert.equal(await program.read('dx'), Float32Array.of(3, 6, 9))
    assert.equal(await program.read('dz'), new Float32Array(3))
  },
)

// State

deviceTest('variables are rebound within a run and committed at its end', async (device) => {
  const store = new Store(device, 'state')
  const counter = store.declare('counter', spec([2]), Float32Array.of(1, 10))
  const program = await compile(device, { step: spec([]) }, ({ step }) => {
    const before = read(counter)
    assign(counter, add(before, step))
    const between = read(counter)
    assign(counter, mul(between, between))
    return { before, between, after: read(counter) }
  })
  program.run({ step: Float32Array.of(1) })
  // The outputs are values of the run, whatever has become of the variable.
  assert.equal(await program.read('before'), Float32Array.of(1, 10))
  assert.equal(await program.read('between'), Float32Array.of(2, 11))
  assert.equal(await program.read('after'), Float32Array.of(4, 121))
  assert.equal(await store.read('counter'), Float32Array.of(4, 121))
  program.run({ step: Float32Array.of(-1) })
  assert.equal(await store.read('counter'), Float32Array.of(9, 14400))
})

deviceTest('an update in place of a variable needs no copy, unless the old value is wanted', async (device) => {
  const store = new Store(device, 'state')
  const weight = store.declare('weight', spec([3]), ramp(3))
  const momentum = store.declare('momentum', spec([3]))
  const inputs = { gradient: spec([3]), learningRate: spec([]) }
  const step = (t: { gradient: Tensor; learningRate: Tensor }) => {
    const next = sgd({ ...t, parameter: read(weight), velocity: read(momentum) }, { momentum: 0.5, weightDecay: 0 })
    assign(weight, next.parameter)
    assign(momentum, next.velocity)
  }
  const lean = await compile(device, inputs, (t) => {
    step(t)
    return {}
  })
  assert.equal(lean.kernels, ['sgd'])
  assert.is(lean.memory.planned, 0)
  const watched = await compile(device, inputs, (t) => {
    const old = scale(read(weight), 1)
    const before = read(weight)
    step(t)
    return { old, before }
  })
  assert.ok(watched.kernels.includes('copy'))
  const data = { gradient: new Float32Array(3).fill(1), learningRate: Float32Array.of(0.5) }
  lean.run(data)
  assert.equal(await store.read('weight'), Float32Array.of(0.5, 1.5, 2.5))
  watched.run(data)
  assert.equal(await watched.read('old'), Float32Array.of(0.5, 1.5, 2.5))
  assert.equal(await watched.read('before'), Float32Array.of(0.5, 1.5, 2.5))
  assert.equal(await store.read('weight'), Float32Array.of(-0.25, 0.75, 1.75))
  assert.equal(await store.read('momentum'), new Float32Array(3).fill(1.5))
})

deviceTest('a variable may take the old value of another one that changes in the same run', async (device) => {
  const store = new Store(device, 'state')
  const current = store.declare('current', spec([2]), ramp(2))
  const previous = store.declare('previous', spec([2]))
  const program = await compile(device, {}, () => {
    assign(previous, read(current))
    assign(current, scale(read(current), 2))
    return {}
  })
  for (let k = 0; k < 2; k++) program.run({})
  assert.equal(await store.read('current'), Float32Array.of(4, 8))
  assert.equal(await store.read('previous'), Float32Array.of(2, 4))
})

deviceTest(
  'a snapshot keeps the values of its moment, and a program runs on it in place of the store',
  async (device) => {
    const store = new Store(device, 'model')
    const weight = store.declare('weight', spec([2]), Float32Array.of(1, 2))
    const forward = await compile(device, { x: spec([2]) }, ({ x }) => ({ y: mul(x, read(weight)), w: read(weight) }))
    const update = await compile(device, {}, () => {
      assign(weight, scale(read(weight), 10))
      return {}
    })
    const snapshot = store.snapshot('previous')
    update.run({})
    const x = Float32Array.of(1, 1)
    forward.run({ x })
    assert.equal(await forward.read('y'), Float32Array.of(10, 20))
    forward.run({ x }, { stores: new Map([[store, snapshot]]) })
    assert.equal(await forward.read('y'), Float32Array.of(1, 2))
    assert.equal(await forward.read('w'), Float32Array.of(1, 2))
    update.run({}, { stores: new Map([[store, snapshot]]) })
    assert.equal(await snapshot.read('weight'), Float32Array.of(10, 20))
    assert.equal(await store.read('weight'), Float32Array.of(10, 20))
    forward.run({ x })
    assert.equal(await forward.read('y'), Float32Array.of(10, 20))
    const part = store.snapshot('nothing', ({ name }) => name !== 'weight')
    assert.equal(part.all(), [])
  },
)

// Errors

deviceTest('a shape error names the operator, the shapes and the line of the caller', async (device) => {
  const inputs = { x: spec([1, 5, 5, 3]), w: spec([3, 3, 4, 8]) }
  const message = await messageOf(() => compile(device, inputs, ({ x, w }) => ({ y: conv2d(x, w) })))
  assert.match(message, 'conv2d(f32[1, 5, 5, 3], f32[3, 3, 4, 8])')
  assert.match(message, /x has 3 channels, w takes 4/)
  assert.match(message, /engine\.test\.js:\d+/)
  const broadcast = await messageOf(() =>
    compile(device, { x: spec([2, 3]), y: spec([4, 3]) }, ({ x, y }) => ({ z: add(x, y) })),
  )
  assert.match(broadcast, /add: shapes \[2, 3\], \[4, 3\] do not broadcast/)
  const concatenated = await messageOf(() =>
    compile(device, { x: spec([2, 3]), y: spec([4, 5]) }, ({ x, y }) => ({ z: concat([x, y], 0) })),
  )
  assert.match(concatenated, /concat\(f32\[2, 3\], f32\[4, 5\]\): shapes differ .*engine\.test\.js:\d+/)
})

deviceTest('an update runs as soon as its gradient is there, and gradients then share memory', async (device) => {
  const layers = 6
  // Too large to wait for one another in a batch.
  const size = 2 ** 17
  const store = new Store(device, 'chain')
  const weights = Array.from({ length: layers }, (_, i) => store.declare(`w${i}`, spec([size]), ramp(size)))
  const velocities = weights.map(({ name }) => store.declare(`v${name}`, spec([size])))
  const program = await compile(device, { x: spec([size]), rate: spec([]) }, ({ x, rate }) => {
    const loss = sum(weights.reduce((y, w) => relu(mul(y, read(w))), x))
    const gradients = grad(loss, weights.map(read))
    for (const [i, gradient] of gradients.entries()) {
      const [parameter, velocity] = [weights[i], velocities[i]]
      if (!parameter || !velocity) throw new Error('unreachable: as many gradients as weights')
      const next = sgd({ parameter: read(parameter), velocity: read(velocity), gradient, learningRate: rate })
      assign(parameter, next.parameter)
      assign(velocity, next.velocity)
    }
    return { loss }
  })
  const updates = program.nodes.flatMap((node, i) => (node.name.endsWith('sgd') ? [i] : []))
  const lastGradient = program.nodes.findLastIndex((node) => node.op && !node.name.endsWith('sgd'))
  assert.is(updates.length, layers)
  assert.ok((updates[0] ?? lastGradient) < lastGradient, 'all updates come last')
  program.destroy()
  store.destroy()
})

deviceTest(
  'small updates are done in a few dispatches, which keep the order of those that share a value',
  async (device) => {
    const sizes = [4, 7, 12, 1, 64, 8, 20]
    const results: (readonly number[])[][] = []
    for (const optimize of [true, false]) {
      const store = new Store(device, 'parameters')
      const parameters = sizes.map((size, i) => store.declare(`p${i}`, spec([size]), ramp(size, i)))
      const velocities = sizes.map((size, i) => store.declare(`v${i}`, spec([size]), ramp(size, -i)))
      const inputs = { rate: spec([]), ...Object.fromEntries(sizes.map((size, i) => [`g${i}`, spec([size])])) }
      const body = (tensors: Record<string, Tensor>) => {
        const rate = tensors.rate as Tensor
        for (const [i, variable] of [...parameters, ...parameters.slice(0, 2)].entries()) {
          const velocity = velocities[i % sizes.length] as Variable
          const gradient = scale(tensors[`g${i % sizes.length}`] as Tensor, 2)
          const next = sgd({ parameter: read(variable), velocity: read(velocity), gradient, learningRate: rate })
          assign(variable, next.parameter)
          assign(velocity, next.velocity)
        }
        return {}
      }
      const program = await compile(device, inputs, body, { optimize })
      const updates = program.kernels.filter((label) => label === 'sgd').length
      assert.ok(optimize ? updates < sizes.length / 2 : updates === sizes.length + 2, `${updates} dispatches`)
      const gradients = Object.fromEntries(sizes.map((size, i) => [`g${i}`, ramp(size, i / 2)]))
      for (let k = 0; k < 2; k++) program.run({ rate: Float32Array.of(0.5), ...gradients })
      results.push([...(await store.readAll()).values()].map((data) => [...data]))
      program.destroy()
      store.destroy()
    }
    assert.equal(results[0], results[1])
  },
)

test('operators outside a trace say so', async () => {
  const graph = new Graph()
  const x = graph.input('x', spec([2]))
  assert.match(await messageOf(() => add(x, x)), /outside compile\(\)/)
})

deviceTest('an error in the middle of a trace leaves no trace open', async (device) => {
  await messageOf(() => compile(device, { x: spec([2]) }, ({ x }) => scoped('layer', () => ({ y: x.reshape(3) }))))
  const graph = new Graph()
  assert.match(await messageOf(() => sum(graph.input('x', spec([2])))), /outside compile\(\)/)
})

const wrongInput: [string, Parameters<typeof spec>, Float32Array | Uint8Array | undefined, RegExp][] = [
  ['too short', [[3]], new Float32Array(2), /input 'x' is f32\[3\], not a Float32Array of 2/],
  ['of another type', [[3]], new Uint8Array(3), /input 'x' is f32\[3\], not a Uint8Array of 3/],
  ['missing', [[3]], undefined, /input 'x' is missing/],
]
for (const [name, shape, data, expected] of wrongInput) {
  deviceTest(`an input that is ${name} is an error`, async (device) => {
    const program = await compile(device, { x: spec(...shape) }, ({ x }) => ({ y: relu(x) }))
    assert.match(await messageOf(() => program.run({ x: data as Float32Array })), expected)
  })
}

/** An operator with one kernel, given as WGSL. */
const custom = (name: string, source: string) => (x: Tensor) =>
  applyOne(
    defineOp<undefined>(name, {
      shape: ([first = spec([])]) => [first],
      kernel: (): Candidate[] => [
        {
          name,
          dispatches: [
            { label: name, source, reads: [inputBuffer(0)], writes: [outputBuffer(0)], uniforms: [], grid: [1, 1, 1] },
          ],
        },
      ],
    }),
    [x],
    undefined,
  )

deviceTest('a shader that does not compile fails with the name of its kernel', async (device) => {
  const broken = custom('crookedKernel', '@compute @workgroup_size(1) fn main() { let x = nothing; }')
  const message = await messageOf(() => compile(device, { x: spec([2]) }, ({ x }) => ({ y: broken(x) })))
  assert.match(message, /kernel crookedKernel does not compile/)
  assert.match(message, /nothing/)
})

deviceTest('a shader that does not fit its bindings fails with the name of its kernel', async (device) => {
  const source = `@group(0) @binding(9) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main() { y[0] = 1; }`
  const message = await messageOf(() =>
    compile(device, { x: spec([2]) }, ({ x }) => ({ y: custom('strayBinding', source)(x) })),
  )
  assert.match(message, /kernel strayBinding/)
})

deviceTest('what WebGPU reports without throwing is thrown by the next wait', async (device) => {
  device.gpu.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE })
  assert.match(await messageOf(() => device.idle()), /the GPU reported/)
  await device.idle()
})

deviceTest('a buffer beyond the limits is refused with its name', async (device) => {
  const count = device.gpu.limits.maxStorageBufferBindingSize / 4 + 1
  const message = await messageOf(() => compile(device, { vast: spec([count]) }, ({ vast }) => ({ y: sum(vast) })))
  assert.match(message, /^program: input vast f32\[\d+\] of .* MiB is too large: this adapter binds at most/)
})

register('a lost device is an error with its reason', async () => {
  const device = await open()
  // As if the driver had failed: the engine has not asked for it.
  device.gpu.destroy()
  await device.gpu.lost
  assert.match(await messageOf(() => device.check()), /the GPU device was lost \(destroyed\)/)
})

test('a shader has what is replaced in it', async () => {
  const source = 'const TILE = 4u;\nalias T = f32;\nfn store(i: u32) {\n  if (i > 0u) { }\n}\nfn main() {}\n'
  const changed = specialize(source, {
    constants: { TILE: 8 },
    aliases: { T: 'f16' },
    hooks: { store: 'fn store(i: u32) { }' },
  })
  assert.is(changed, 'enable f16;\nconst TILE = 8;\nalias T = f16;\nfn store(i: u32) { }\nfn main() {}\n')
  assert.match(await messageOf(() => specialize(source, { constants: { SIDE: 8 } })), /no 'SIDE'/)
  assert.match(await messageOf(() => specialize(source, { hooks: { load: '' } })), /no function 'load'/)
})

// Shaders and determinism

const shaderFolder = new URL('../../../shaders/', import.meta.url)
for (const file of readdirSync(shaderFolder).filter((name) => name.endsWith('.wgsl'))) {
  const code = readFileSync(new URL(file, shaderFolder), 'utf8')
  const features = [...code.matchAll(/^enable (\w+);/gm)].map(([, name]) =>
    name === 'f16' ? 'shader-f16' : (name ?? '').replaceAll('_', '-'),
  )
  const missing = features.filter((name) => !opened?.gpu.features.has(name))
  const shaderTest = skipUnless(
    missing.length === 0 && available,
    `the adapter has no ${missing.join(' and ') || 'WebGPU'}`,
  )
  shaderTest(`shaders/${file} is valid as it stands`, async () => {
    if (!opened) throw new Error('unreachable: the test is skipped without a device')
    opened.gpu.pushErrorScope('validation')
    const module = opened.gpu.createShaderModule({ label: file, code })
    opened.gpu.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } })
    const error = await opened.wait(opened.gpu.popErrorScope())
    assert.is(error?.message ?? '', '')
  })
}

deviceTest('the same inputs give the same bits', async (device) => {
  const inputs = { x: spec([2, 33, 31, 3]), w: spec([3, 3, 3, 8]), g: spec([8]), target: spec([2, 33, 31], 'u8') }
  const build = () =>
    compile(device, inputs, ({ x, w, g, target }) => {
      const statistics = { weight: g, bias: g, runningMean: g, runningVar: g }
      const { y, runningVar } = batchNormTraining(conv2d(x, w, { padding: 1 }), statistics)
      const { loss, kept } = ohemCrossEntropy(y, target, { threshold: 0.3, minKept: 500 })
      const [dw, dg] = grad(loss, [w, g])
      if (!dw || !dg) throw new Error('grad gave nothing')
      return { loss, kept, runningVar, dw, dg }
    })
  const random = new Random('determinism')
  const data = {
    x: new Float32Array(2 * 33 * 31 * 3).map(() => random.normal()),
    w: new Float32Array(216).map(() => random.normal()),
    g: new Float32Array(8).fill(1),
    target: new Uint8Array(2 * 33 * 31).map(() => (random.integer(9) ? random.integer(8) : 255)),
  }
  const names = ['loss', 'kept', 'runningVar', 'dw', 'dg'] as const
  const bits: Uint8Array[][] = []
  for (let k = 0; k < 2; k++) {
    const program = await build()
    for (let run = 0; run < 2; run++) {
      program.run(data)
      bits.push(
        (await program.readAll(names)).map((list) => new Uint8Array(list.buffer, list.byteOffset, list.byteLength)),
      )
    }
    program.destroy()
  }
  assert.ok(
    bits[0]?.[3]?.some((byte) => byte !== 0),
    'gradients of 0 prove nothing',
  )
  for (const other of bits.slice(1)) assert.equal(other, bits[0])
})

test.after(() => opened?.destroy())

test.run()
