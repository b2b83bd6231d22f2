// Panels sum the same products in the same order as register tiles: the results have the same bits.
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { compile } from '#dist/engine/program.js'
import { type Data, elements, type Shape, spec } from '#dist/engine/shape.js'
import { conv2d, conv2dInputGrad, conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import { canMirror } from '#dist/kernels/conv2d-panels.js'
import { add, mul } from '#dist/kernels/pointwise.js'
import { Random } from '../../cases/case.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device } = await onDevice()
const hasPanels = device !== undefined && canMirror(device.traits, [1])
const panelTest = skipUnless(hasPanels, 'panels are for CPU drivers with subgroups of 4 or 8 lanes that read textures')

const select =
  (isPanel: boolean): SelectKernel =>
  (_, candidates) =>
    candidates.find(({ name }) => (name === 'panel') === isPanel && !name.startsWith('workgroup')) ?? candidates[0]

/** Sizes around what a panel, a texel and a workgroup hold. */
const geometries = fc
  .record({
    n: fc.constantFrom(1, 2, 3, 4),
    height: fc.integer({ min: 1, max: 11 }),
    width: fc.integer({ min: 1, max: 11 }),
    channels: fc.constantFrom(1, 3, 4, 16, 33, 64, 100),
    out: fc.constantFrom(1, 5, 8, 31, 32, 64, 65, 130),
    taps: fc.constantFrom(1, 3),
    stride: fc.constantFrom(1, 2, 3),
    dilation: fc.constantFrom(1, 2, 6),
    seed: fc.nat(),
  })
  .map((g) => ({ ...g, padding: ((g.taps - 1) / 2) * g.dilation }))

panelTest('panels: convolutions and input gradients of random sizes, bit for bit', async () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  const check = async ({ n, height, width, channels, out, taps, seed, ...options }: Geometry) => {
    const random = new Random(`${seed}`)
    const draw = (shape: Shape) => Float32Array.from({ length: elements(shape) }, () => random.normal())
    const [x, w] = [
      [n, height, width, channels],
      [taps, taps, channels, out],
    ] as const
    const outHeight = Math.floor((height - 1) / options.stride) + 1
    const outWidth = Math.floor((width - 1) / options.stride) + 1
    const dy = [n, outHeight, outWidth, out]
    const inputs = { x: draw(x), w: draw(w), dy: draw(dy), factor: draw([out]) }
    const results: Data[][] = []
    for (const isPanel of [false, true]) {
      const program = await compile(
        device,
        { x: spec(x), w: spec(w), dy: spec(dy), factor: spec([out]) },
        (t) => ({
          y: conv2d(t.x, t.w, options),
          dx: conv2dInputGrad(t.dy, t.w, { ...options, size: x }),
          // With what reads operands where it stores the result.
          dw: add(mul(conv2dWeightGrad(t.x, t.dy, { ...options, size: w }), t.factor), t.w),
        }),
        { selectKernel: select(isPanel) },
      )
      program.run(inputs)
      results.push(await program.readAll(['y', 'dx', 'dw']))
      program.destroy()
    }
    const [[y, dx, dw] = [], [panelY, panelDx, panelDw] = []] = results
    assert.equal(panelY, y, 'forward')
    assert.equal(panelDx, dx, 'input gradient')
    // Its terms come in another order, and other slices are added up.
    const largest = Math.max(...Array.from(dw ?? [], Math.abs))
    const worst = Math.max(...Array.from(dw ?? [], (value, i) => Math.abs(value - (panelDw?.[i] ?? Number.NaN))))
    assert.ok(worst <= 1e-5 * largest, `weight gradient: ${worst} of ${largest}`)
  }
  await fc.assert(fc.asyncProperty(geometries, check), { numRuns: 60, seed: 1 })
})

type Geometry = typeof geometries extends fc.Arbitrary<infer G> ? G : never

test.run()
