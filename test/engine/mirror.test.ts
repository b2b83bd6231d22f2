// Textures that mirror tensors: what they hold, how long they are kept, and what programs share of them.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Arena } from '#dist/engine/arena.js'
import { applyOne, assign, read } from '#dist/engine/graph.js'
import { defineOp, type Tensor } from '#dist/engine/ir.js'
import { ceilDiv, inputBuffer, outputBuffer } from '#dist/engine/kernel.js'
import { mirrorFormat } from '#dist/engine/mirror.js'
import { printProgram } from '#dist/engine/print-program.js'
import { compile, type Program } from '#dist/engine/program.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { add, relu } from '#dist/kernels/pointwise.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

/** Elements by fours of a mirror, each plus texel 0, which must be zeros. */
const readMirror = defineOp<Record<string, never>>('readMirror', {
  shape: ([x = spec([])]) => [spec(x.shape)],
  kernel: ({ inputs: [x = spec([])] }) => {
    const texels = elements(x.shape) / 4
    const mirror = mirrorFormat(x)
    const source = `
@group(0) @binding(0) var<uniform> count: vec4u;
@group(0) @binding(1) var x: texture_storage_2d<${mirror}, read>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let t = id.x + 4096;
  if (id.x < count.x) {
    y[id.x] = textureLoad(x, vec2u(t % 4096, t / 4096)) + textureLoad(x, vec2u(0, 0));
  }
}`
    const dispatch = { reads: [{ ...inputBuffer(0), mirror }], writes: [outputBuffer(0)], uniforms: [texels] }
    return [{ name: 'mirror', dispatches: [{ label: 'read', source, ...dispatch, grid: [ceilDiv(texels, 64), 1, 1] }] }]
  },
})
const mirrored = (x: Tensor): Tensor => applyOne(readMirror, [x], {})

const mirrorsOf = (program: Program): number => program.kernels.filter((kernel) => kernel === 'mirror').length

const numbers = (count: number): Float32Array => new Float32Array(count).map((_, i) => ((i * 7919) % 1009) - 500)

for (const count of [4, 4096 * 4 - 4, 4096 * 4, 4096 * 4 + 4, 4096 * 12 + 8]) {
  deviceTest(`a mirror of ${count} elements holds them behind zeros`, async (device) => {
    const x = numbers(count)
    const program = await compile(device, { x: spec([count]) }, ({ x }) => ({ y: mirrored(x) }))
    program.run({ x })
    assert.equal(await program.read('y'), x)
    program.destroy()
  })
}

deviceTest('a mirror of half precision', async (device) => {
  const program = await compile(device, { x: spec([8], 'f16') }, ({ x }) => ({ y: mirrored(x) }))
  program.run({ x: new Uint16Array([0x3c00, 0x4000, 0x4200, 0xc400, 0, 0x3800, 0x7bff, 1]) })
  assert.equal(await program.read('y'), new Float32Array([1, 2, 3, -4, 0, 0.5, 65504, 2 ** -24]))
  program.destroy()
})

deviceTest('programs of an arena share textures, whose zeros stay', async (device) => {
  const arena = new Arena(device, 'shared')
  const sizes = [4096 * 20, 16, 4096 * 8]
  const programs = await Promise.all(
    sizes.map((size) => compile(device, { x: spec([size]) }, ({ x }) => ({ y: mirrored(x) }), { arena })),
  )
  for (const [i, program] of [...programs.entries(), ...programs.entries()]) {
    const x = numbers(sizes[i] ?? 0)
    program.run({ x })
    assert.equal(await program.read('y'), x)
  }
  for (const program of programs) program.destroy()
  arena.destroy()
})

deviceTest('one mirror serves the readers of a value, and each new value of a variable has its own', async (device) => {
  const store = new Store(device, 'store')
  const w = store.declare('w', spec([64]), numbers(64))
  const program = await compile(
    device,
    {},
    () => {
      const before = read(w)
      const twice = add(mirrored(before), mirrored(mirrored(before)))
      assign(w, relu(before))
      return { twice, after: mirrored(read(w)) }
    },
    { optimize: false },
  )
  program.run({})
  assert.equal(
    await program.read('twice'),
    numbers(64).map((v) => 2 * v),
  )
  assert.equal(
    await program.read('after'),
    numbers(64).map((v) => Math.max(0, v)),
  )
  assert.is(mirrorsOf(program), 3)
  program.destroy()
  store.destroy()
})

deviceTest(
  'a large mirror is not kept for a reader far away, and its texture serves others meanwhile',
  async (device) => {
    const size = 4 * 4096 * 64
    const program = await compile(
      device,
      { x: spec([size]) },
      ({ x }) => {
        const first = mirrored(x)
        let y = first
        for (let i = 0; i < 16; i++) y = relu(add(y, mirrored(y)))
        return { y: add(y, mirrored(x)) }
      },
      { optimize: false, share: true },
    )
    const bytes = 4096 * 16 * 65
    const printed = printProgram(program)
    assert.match(printed, /textures of mirrors +1 +4\.1 MiB/)
    assert.is(mirrorsOf(program), 18)
    assert.ok(program.memory.planned >= bytes)
    const x = numbers(size).map((v) => v / 2 ** 20)
    program.run({ x })
    const y = await program.read('y')
    assert.ok(Math.abs((y[3] ?? 0) - ((x[3] ?? 0) > 0 ? (x[3] ?? 0) * 2 ** 16 : 0) - (x[3] ?? 0)) < 1e-3)
    program.destroy()
  },
)

deviceTest('what no mirror can hold is refused by name', async (device) => {
  const refused = (shape: number[], dtype: 'f32' | 'u32') =>
    compile(device, { x: spec(shape, dtype) }, ({ x }) => ({ y: mirrored(x) })).then(
      () => 'compiled',
      (error: Error) => error.message,
    )
  assert.is(await refused([5], 'f32'), 'input x: a mirror holds floats by fours')
  assert.is(await refused([8], 'u32'), 'input x: a mirror holds floats by fours')
})

test.run()
