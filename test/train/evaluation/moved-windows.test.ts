// Evaluation with a model of patches: windows that are moved back at the border, and images that are resized.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { normalizeImage } from '#dist/kernels/images.js'
import { softmax } from '#dist/kernels/softmax.js'
import { createModel } from '#dist/models/index.js'
import { logits } from '#dist/models/segmentation.js'
import { cut } from '#dist/train/data/pixels.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { windowStarts } from '#dist/train/evaluation/inference.js'
import { protocolOf } from '#dist/train/evaluation/protocol.js'
import { Random } from '#dist/train/random.js'
import { smallDinoV2 } from '../../support/small-dinov2.js'

const test = suite('moved windows')
const device = await open()
test.after(() => device.destroy())

const { nclass } = smallDinoV2
const random = new Random(4)
const model = createModel(
  new Store(device, 'model'),
  { architecture: 'dpt', config: smallDinoV2 },
  // Larger than what training begins with, so that scores differ from pixel to pixel.
  { uniform: (low, high) => 3 * random.uniform(low, high), normal: () => 8 * random.normal() },
)
/** An image of squares of 16 pixels in random colours. */
function imageOf(width: number, height: number) {
  const colors = Array.from({ length: 8 * 8 * 3 }, () => random.integer(0, 256))
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3)
    const square = Math.floor(Math.floor(pixel / width) / 16) * 8 + Math.floor((pixel % width) / 16)
    return colors[square * 3 + (i % 3)] ?? 0
  })
  return { width, height, data }
}

test('the last window ends at the border, and one is as large as an image that is smaller', () => {
  const starts = (extent: number, window: number) => windowStarts(extent, window, Math.floor((window * 2) / 3), true)
  assert.equal(starts(2048, 798), [0, 532, 1064, 1250])
  assert.equal(starts(1024, 798), [0, 226])
  assert.equal([starts(70, 70), starts(71, 70), starts(20, 70)], [[0], [0, 1], [0]])
})

for (const [width, height] of [
  [71, 50],
  [30, 97],
] as const) {
  test(`probabilities of windows of 42 in ${width} x ${height} are added`, async () => {
    const image = imageOf(width, height)
    const expected = new Float64Array(width * height * nclass)
    for (const y of windowStarts(height, 42, 28, true)) {
      for (const x of windowStarts(width, 42, 28, true)) {
        const box = { x, y, w: Math.min(42, width), h: Math.min(42, height) }
        const program = await compile(device, { image: spec([1, box.h, box.w, 3], 'u8') }, (t) => ({
          scores: softmax(logits(model, normalizeImage(t.image), { training: false })),
        }))
        program.run({ image: cut(image, 3, box).data })
        for (const [i, value] of (await program.read('scores')).entries()) {
          const pixel = Math.floor(i / nclass)
          const at = (y + Math.floor(pixel / box.w)) * width + x + (pixel % box.w)
          expected[at * nclass + (i % nclass)] = (expected[at * nclass + (i % nclass)] ?? 0) + value
        }
        program.destroy()
      }
    }
    const evaluator = new Evaluator(device, model, { mode: 'sliding_window', window: 42, scores: true })
    const { scores = new Float32Array() } = await evaluator.predict(image)
    evaluator.destroy()
    assert.is(scores.length, expected.length)
    const worst = scores.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] ?? 0))), 0)
    // Up to nine probabilities are added in another precision.
    assert.ok(worst < 1e-5, `${worst}`)
    // Where windows overlap, and where classes differ.
    const [low, high] = [Math.min(...scores), Math.max(...scores)]
    assert.ok(high > 1 && low < 0.3, `${low} to ${high}`)
  })
}

test('labels are those of the highest logits at the size of the image', async () => {
  const image = imageOf(62, 45)
  const evaluator = new Evaluator(device, model, { mode: 'original' })
  const { label } = await evaluator.predict(image)
  evaluator.destroy()
  const scored = new Evaluator(device, model, { mode: 'original', scores: true })
  const { label: same, scores = new Float32Array() } = await scored.predict(image)
  scored.destroy()
  assert.equal(label, same)
  const highest = Array.from(label, (_, pixel) => {
    const own = scores.subarray(pixel * nclass, (pixel + 1) * nclass)
    return own.indexOf(Math.max(...own))
  })
  assert.equal(Array.from(label), highest)
  assert.ok(new Set(highest).size > 1)
})

test('the protocol says so', () => {
  const patches = { multiple: 14 }
  assert.match(protocolOf({ mode: 'original' }, 0, patches), /^whole images, resized to multiples of 14; /)
  assert.match(
    protocolOf({ mode: 'sliding_window', window: 798 }, 0, patches),
    /^windows of 798 in steps of 532, moved back at the border, /,
  )
})

test.run()
