// Winograd's convolutions against products in double precision, at sizes around what tiles, texels and pieces hold.
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { AdapterTraits } from '#dist/engine/adapter.js'
import type { Device } from '#dist/engine/device.js'
import type { Tensor } from '#dist/engine/ir.js'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { compile } from '#dist/engine/program.js'
import { type Data, elements, type Shape, spec } from '#dist/engine/shape.js'
import { conv2d, conv2dInputGrad, conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import type { ConvGeometry } from '#dist/kernels/conv2d-geometry.js'
import { convCandidates, weightGradCandidates } from '#dist/kernels/conv2d-kernels.js'
import { canMirror } from '#dist/kernels/conv2d-panels.js'
import { add, mul, relu } from '#dist/kernels/pointwise.js'
import { allowance, Random } from '../../cases/case.js'
import * as reference from '../../cases/reference/index.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device } = await onDevice()
const isForCpu = device !== undefined && canMirror(device.traits, [1])
const winogradTest = skipUnless(
  isForCpu,
  "Winograd's convolutions are for CPU drivers with subgroups of 4 or 8 lanes that read textures",
)

const opened = (): Device => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  return device
}

const winograd: SelectKernel = (node, candidates) => {
  const found = candidates.find(({ name }) => name === 'winograd')
  if (!found && node.name.startsWith('conv2d')) throw new Error(`${node.name} has no such kernel`)
  return found ?? candidates[0]
}

interface Geometry {
  readonly n: number
  readonly height: number
  readonly width: number
  readonly channels: number
  readonly out: number
  readonly padding: number
  readonly dilation: number
}

/** Inputs of a convolution and its gradients, and their shapes. */
function drawn({ n, height, width, channels, out, padding, dilation }: Geometry, seed: string) {
  const random = new Random(seed)
  const draw = (shape: Shape) => Float32Array.from({ length: elements(shape) }, () => random.normal())
  const [outHeight, outWidth] = [height, width].map((size) => size + 2 * padding - 2 * dilation)
  const x = [n, height, width, channels]
  const w = [3, 3, channels, out]
  const dy = [n, outHeight ?? 0, outWidth ?? 0, out]
  return { shapes: { x, w, dy }, data: { x: draw(x), w: draw(w), dy: draw(dy) } }
}

/** @param terms products of normal numbers in each sum: what cancels in a few of them leaves its roundings */
function near(actual: Data | undefined, expected: ArrayLike<number>, terms: number, what: string): void {
  const values = Array.from(expected)
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), Math.sqrt(terms))
  const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - (actual?.[i] ?? Number.NaN))), 0)
  assert.ok(worst <= allowance(terms) * largest, `${what}: ${worst} of ${largest}`)
}

async function check(geometry: Geometry, seed: string, selectKernel = winograd): Promise<void> {
  const { shapes, data } = drawn(geometry, seed)
  const { n, height, width, channels, out, padding, dilation } = geometry
  const options = { padding, dilation }
  const program = await compile(
    opened(),
    { x: spec(shapes.x), w: spec(shapes.w), dy: spec(shapes.dy) },
    (t) => ({
      y: conv2d(t.x, t.w, options),
      dx: conv2dInputGrad(t.dy, t.w, { ...options, size: shapes.x }),
      dw: conv2dWeightGrad(t.x, t.dy, { ...options, size: shapes.w }),
    }),
    { selectKernel },
  )
  program.run(data)
  const [y, dx, dw] = await program.readAll(['y', 'dx', 'dw'])
  program.destroy()
  const x = reference.values(shapes.x, data.x)
  const w = reference.values(shapes.w, data.w)
  const dy = reference.values(shapes.dy, data.dy)
  near(y, reference.conv2d(x, w, options).data, 9 * channels, 'forward')
  near(dx, reference.conv2dInputGrad(dy, w, { ...options, size: shapes.x }).data, 9 * out, 'input gradient')
  const expected = reference.conv2dWeightGrad(x, dy, { ...options, size: shapes.w }).data
  near(dw, expected, n * height * width, 'weight gradient')
}

/** Paddings up to three times the dilation: at more than twice, the input gradient's is negative. */
const geometries = fc
  .record({
    n: fc.constantFrom(1, 2, 3),
    height: fc.integer({ min: 1, max: 11 }),
    width: fc.integer({ min: 1, max: 11 }),
    channels: fc.constantFrom(1, 3, 4, 16, 33, 64, 100),
    out: fc.constantFrom(1, 5, 8, 31, 32, 65, 130),
    padding: fc.integer({ min: 0, max: 9 }),
    dilation: fc.constantFrom(1, 2, 3, 6),
    seed: fc.nat(),
  })
  .filter(({ height, width, padding, dilation }) => {
    return Math.min(height, width) + 2 * padding > 2 * dilation && padding <= 3 * dilation
  })

winogradTest('random sizes', async () => {
  const property = fc.asyncProperty(geometries, ({ seed, ...geometry }) => check(geometry, `${seed}`))
  await fc.assert(property, { numRuns: 50, seed: 1 })
})

winogradTest('maps in several pieces, which end within images', async () => {
  const products: number[] = []
  const geometry = { n: 2, height: 62, width: 58, channels: 260, out: 3, padding: 1, dilation: 1 }
  await check(geometry, 'pieces', async (node, candidates) => {
    const chosen = await winograd(node, candidates)
    products.push(chosen?.dispatches.filter(({ multiplies }) => multiplies).length ?? 0)
    return chosen
  })
  assert.equal(products, [2, 2, 2])
})

winogradTest('formulas behind them', async () => {
  const { shapes, data } = drawn(
    { n: 2, height: 7, width: 8, channels: 5, out: 10, padding: 1, dilation: 1 },
    'formulas',
  )
  const specs = { x: spec(shapes.x), w: spec(shapes.w), dy: spec(shapes.dy), factor: spec([10]), more: spec(shapes.w) }
  const random = new Random('formulas')
  const further = (shape: Shape) => Float32Array.from({ length: elements(shape) }, () => random.normal())
  const inputs = { ...data, factor: further([10]), more: further(shapes.w) }
  const body = (t: Record<keyof typeof specs, Tensor>) => ({
    y: relu(add(mul(conv2d(t.x, t.w, { padding: 1 }), t.factor), t.dy)),
    dx: add(conv2dInputGrad(t.dy, t.w, { padding: 1, size: shapes.x }), t.x),
    dw: add(conv2dWeightGrad(t.x, t.dy, { padding: 1, size: shapes.w }), t.more),
  })
  const results: Data[][] = []
  for (const options of [{ selectKernel: winograd }, { optimize: false }]) {
    const program = await compile(opened(), specs, body, options)
    program.run(inputs)
    results.push(await program.readAll(['y', 'dx', 'dw']))
    if (options.selectKernel) assert.is(program.nodes.filter(({ op }) => op).length, 3)
    program.destroy()
  }
  const [fused = [], plain = []] = results
  for (const [i, terms] of [45, 90, 112].entries()) near(fused[i], plain[i] ?? [], terms, `result ${i}`)
})

const traits: AdapterTraits = {
  ...{ software: true, half: true, subgroupSize: 8, subgroupSizes: [], matrixConfigs: [] },
  ...{ maxStorageBuffers: 8, maxWorkgroupStorage: 32768, maxMirrorRows: 16384 },
  ...{ maxBinding: 2 ** 27, storageAlignment: 16 },
}

/** The kernels that the rule takes for a convolution that keeps the size of its maps, and for its gradients. */
async function chosen(
  [n, side, from, to]: readonly [number, number, number, number],
  { kernel = 3, stride = 1, dilation = 1, dtype = 'f32' as 'f32' | 'f16', adapter = traits } = {},
): Promise<(string | undefined)[]> {
  const [x, out] = [side, Math.ceil(side / stride)]
  const g: ConvGeometry = {
    ...{ n, xHeight: x, xWidth: x, xChannels: from, yHeight: out, yWidth: out, yChannels: to },
    ...{ kh: kernel, kw: kernel, stride, padding: (dilation * (kernel - 1)) / 2, dilation, groups: 1 },
  }
  const map = spec([n, x, x, from], dtype)
  const weights = spec([kernel, kernel, from, to], dtype)
  const result = spec([n, out, out, to], dtype)
  const candidates = await Promise.all([
    convCandidates('forward', g, { factors: [map, weights], result }, adapter),
    convCandidates('inputGrad', g, { factors: [result, weights], result: map }, adapter),
    weightGradCandidates(g, { factors: [map, result], result: weights }, adapter),
  ])
  return candidates.map(([first]) => first?.name)
}

const three = (name: string) => [name, name, name]

test('the rule takes them where transforms cost less than they save', async () => {
  assert.equal(await chosen([16, 33, 304, 256]), three('winograd'))
  assert.equal(await chosen([8, 17, 128, 128]), three('winograd'))
  assert.equal(await chosen([4, 9, 256, 256]), three('panel'), 'few tiles')
  assert.equal(await chosen([4, 33, 64, 64]), three('panel'), 'few channels')
  assert.is.not((await chosen([16, 33, 304, 40]))[0], 'winograd', 'a panel of which much is computed for nothing')
  assert.equal(await chosen([16, 9, 512, 512], { dilation: 2 }), three('panel'), 'many taps beside the map')
})

test('the rule takes other kernels for other taps, types and adapters', async () => {
  const large = [16, 33, 256, 256] as const
  for (const options of [{ kernel: 1 }, { stride: 2 }, { dtype: 'f16' as const }]) {
    assert.equal(await chosen(large, options), three('panel'), JSON.stringify(options))
  }
  for (const adapter of [
    { ...traits, software: false },
    { ...traits, subgroupSize: 16 },
    { ...traits, maxMirrorRows: 0 },
  ]) {
    for (const name of await chosen(large, { adapter })) assert.match(name ?? '', /^(workgroup|subgroup)/)
  }
})

test.run()
