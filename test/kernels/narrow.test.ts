// The kernels of few channels sum the same products in the same order as register tiles: the results have the same bits.
// Weight gradients sum the pixels in another order.
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { compile } from '#dist/engine/program.js'
import { type Data, elements, type Shape, spec } from '#dist/engine/shape.js'
import { conv2d, conv2dInputGrad, conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import { canMirror } from '#dist/kernels/conv2d-panels.js'
import { add, mul, relu } from '#dist/kernels/pointwise.js'
import { Random } from '../../cases/case.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device } = await onDevice()
const hasMirrors = device !== undefined && canMirror(device.traits, [1])
const narrowTest = skipUnless(
  hasMirrors,
  'the kernels are for CPU drivers with subgroups of 4 or 8 lanes that read textures',
)

/** Register tiles, or the kernels of few channels where there are any. */
const select =
  (name: string, chosen: string[]): SelectKernel =>
  (_, candidates) => {
    const found = candidates.find((each) => each.name === name) ?? candidates.find((each) => each.name === 'subgroup')
    if (found) chosen.push(found.name)
    return found ?? candidates[0]
  }

/** Sizes around those of a texel, a group of lanes and a strip of pixels. */
const geometries = fc.record({
  n: fc.constantFrom(1, 2, 3),
  height: fc.integer({ min: 1, max: 12 }),
  width: fc.integer({ min: 1, max: 12 }),
  channels: fc.constantFrom(3, 4, 8, 12, 16, 64),
  out: fc.constantFrom(4, 5, 8, 12, 16, 22, 24, 32, 36),
  kernel: fc.constantFrom([1, 1], [3, 3], [2, 3], [3, 1]),
  stride: fc.constantFrom(1, 1, 2, 3),
  padding: fc.integer({ min: 0, max: 3 }),
  seed: fc.nat(),
})
type Geometry = typeof geometries extends fc.Arbitrary<infer G> ? G : never

narrowTest('few channels: convolutions and both gradients of random sizes', async () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  let checked = 0
  const check = async ({ n, height, width, channels, out, kernel, seed, ...options }: Geometry) => {
    const [kh = 1, kw = 1] = kernel
    const extent = (size: number, taps: number) => Math.floor((size + 2 * options.padding - taps) / options.stride) + 1
    const [outHeight, outWidth] = [extent(height, kh), extent(width, kw)]
    fc.pre(outHeight > 0 && outWidth > 0)
    const random = new Random(`${seed}`)
    const draw = (shape: Shape) => Float32Array.from({ length: elements(shape) }, () => random.normal())
    const [x, w, y] = [
      [n, height, width, channels],
      [kh, kw, channels, out],
      [n, outHeight, outWidth, out],
    ] as const
    const shapes = { x, w, dy: y, scale: [out], shift: [channels], other: y, rows: [n, height, width, 1], further: x }
    const inputs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, draw(shape)]))
    const specs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, spec(shape)]))
    const results: Data[][] = []
    const gradients: Data[] = []
    const narrow: string[] = []
    for (const wanted of ['subgroup', 'narrow']) {
      const program = await compile(
        device,
        specs as Record<keyof typeof shapes, ReturnType<typeof spec>>,
        (t) => {
          const forward = conv2d(t.x, t.w, options)
          const backward = conv2dInputGrad(t.dy, t.w, { ...options, size: x })
          return {
            y: forward,
            dx: backward,
            dw: conv2dWeightGrad(t.x, t.dy, { ...options, size: w }),
            // As an optimizer reads it.
            step: add(mul(conv2dWeightGrad(t.x, t.other, { ...options, size: w }), t.w), t.w),
            z: relu(add(mul(conv2d(t.further, t.w, options), t.scale), t.other)),
            dz: add(mul(conv2dInputGrad(t.other, t.w, { ...options, size: x }), t.rows), add(t.further, t.shift)),
          }
        },
        { selectKernel: select(wanted, wanted === 'narrow' ? narrow : []) },
      )
      program.run(inputs as Parameters<typeof program.run>[0])
      results.push(await program.readAll(['y', 'dx', 'z', 'dz']))
      gradients.push(...(await program.readAll(['dw', 'step'])))
      program.destroy()
    }
    assert.equal(results[1], results[0])
    const [dw = [], step = [], otherDw = [], otherStep = []] = gradients
    const allowed = 2 ** -23 * Math.sqrt(n * outHeight * outWidth) * Math.max(...Array.from(dw, Math.abs), 1)
    for (const [what, actual, expected] of [
      ['dw', otherDw, dw],
      ['step', otherStep, step],
    ] as const) {
      for (const [i, value] of expected.entries()) {
        assert.ok(Math.abs(value - (actual[i] ?? Number.NaN)) <= 16 * allowed, `${what} [${i}]`)
      }
    }
    if (kh * kw * Math.max(channels, out) <= 120 && channels % 4 === 0 && out % 4 === 0) {
      assert.ok(!narrow.includes('subgroup'))
      checked++
    }
  }
  await fc.assert(fc.asyncProperty(geometries, check), { numRuns: 25, seed: 5 })
  assert.ok(checked >= 4, `${checked} geometries were computed by these kernels alone`)
})

test.run()
