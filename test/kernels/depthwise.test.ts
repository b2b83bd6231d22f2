// Depthwise kernels that read mirrors, beside the plain ones, at random sizes.
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { compile } from '#dist/engine/program.js'
import { type Data, elements, type Shape, spec } from '#dist/engine/shape.js'
import { conv2d, conv2dInputGrad, conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import { canMirror } from '#dist/kernels/conv2d-panels.js'
import { Random } from '../../cases/case.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device } = await onDevice()
const hasMirrors = device !== undefined && canMirror(device.traits, [1])
const depthwiseTest = skipUnless(
  hasMirrors,
  'the kernels are for CPU drivers with subgroups of 4 or 8 lanes that read textures',
)

/** Sizes around those of a block, and distances that share factors or do not. */
const geometries = fc.record({
  n: fc.constantFrom(1, 2, 3),
  height: fc.integer({ min: 1, max: 14 }),
  width: fc.integer({ min: 1, max: 14 }),
  channels: fc.constantFrom(4, 12, 36),
  taps: fc.constantFrom(1, 2, 3, 5),
  stride: fc.constantFrom(1, 2, 3, 4),
  dilation: fc.constantFrom(1, 2, 3, 4),
  padding: fc.integer({ min: 0, max: 9 }),
  seed: fc.nat(),
})
type Geometry = typeof geometries extends fc.Arbitrary<infer G> ? G : never

depthwiseTest('depthwise convolutions and their gradients of random sizes', async () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  let checked = 0
  const check = async ({ n, height, width, channels, taps, seed, ...rest }: Geometry) => {
    const options = { ...rest, groups: channels }
    const extent = (size: number) =>
      Math.floor((size + 2 * options.padding - options.dilation * (taps - 1) - 1) / options.stride) + 1
    const [outHeight, outWidth] = [extent(height), extent(width)]
    fc.pre(outHeight > 0 && outWidth > 0)
    const random = new Random(`${seed}`)
    const draw = (shape: Shape) => Float32Array.from({ length: elements(shape) }, () => random.normal())
    const x = [n, height, width, channels]
    const w = [taps, taps, 1, channels]
    const dy = [n, outHeight, outWidth, channels]
    const inputs = { x: draw(x), w: draw(w), dy: draw(dy) }
    const results: Data[][] = []
    for (const wanted of ['direct', 'depthwise']) {
      const chosen: string[] = []
      const selectKernel: SelectKernel = (_, candidates) => {
        const found = candidates.find(({ name }) => name === wanted) ?? candidates[0]
        if (found) chosen.push(found.name)
        return found
      }
      const program = await compile(
        device,
        { x: spec(x), w: spec(w), dy: spec(dy) },
        (t) => ({
          y: conv2d(t.x, t.w, options),
          dx: conv2dInputGrad(t.dy, t.w, { ...options, size: x }),
          dw: conv2dWeightGrad(t.x, t.dy, { ...options, size: w }),
        }),
        { selectKernel },
      )
      assert.equal(chosen, [wanted, wanted, wanted])
      program.run(inputs)
      results.push(await program.readAll(['y', 'dx', 'dw']))
      program.destroy()
    }
    const [[y, dx, dw] = [], [otherY, otherDx, otherDw] = []] = results
    assert.equal(otherY, y, 'forward')
    // The same terms in another order: at most 25 of them, or the pixels.
    for (const [what, actual, expected, terms] of [
      ['input gradient', otherDx, dx, taps ** 2],
      ['weight gradient', otherDw, dw, n * outHeight * outWidth],
    ] as const) {
      const allowed = 2 ** -23 * Math.sqrt(terms) * Math.max(...Array.from(expected ?? [], Math.abs), 1)
      for (const [i, value] of (expected ?? []).entries()) {
        assert.ok(Math.abs(value - (actual?.[i] ?? Number.NaN)) <= 4 * allowed, `${what} [${i}]`)
      }
    }
    checked++
  }
  await fc.assert(fc.asyncProperty(geometries, check), { numRuns: 20, seed: 3 })
  assert.ok(checked >= 20)
})

test.run()
