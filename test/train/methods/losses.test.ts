// Where nothing counts the losses of all methods are 0 and teach nothing; elsewhere they are those of the operators.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { crossEntropyMean, ohemCrossEntropy } from '#dist/kernels/loss.js'
import { castCall } from '#dist/kernels/pointwise.js'
import { consistencyLosses, supervisedLoss, weighted } from '#dist/train/methods/losses.js'
import { Random } from '../../../cases/case.js'

const device = await open()
test.after(() => device.destroy())

const [images, side, classes] = [2, 5, 3]
const map = [images, side, side]
const inputs = { logits: spec([...map, classes]), target: spec(map, 'u8') }
const random = new Random('losses')
const logits = Float32Array.from({ length: images * side * side * classes }, () => random.normal())
const labels = Uint8Array.from({ length: images * side * side }, () => random.integer(classes))
const nothing = labels.map(() => 255)
const precisions = device.traits.half ? [undefined, castCall] : [undefined]

/** The loss and its gradient with respect to the logits. */
async function run(
  loss: (logits: Tensor, target: Tensor) => Tensor,
  target: Uint8Array,
  autocast: typeof castCall | undefined,
) {
  const body = (t: { logits: Tensor; target: Tensor }) => {
    const value = loss(t.logits, t.target)
    const [gradient] = grad(value, [t.logits])
    if (!gradient) throw new Error('the loss does not depend on the logits')
    return { value, gradient }
  }
  const program = await compile(device, inputs, body, { autocast })
  program.run({ logits, target })
  const result = { value: [...(await program.read('value'))], gradient: [...(await program.read('gradient'))] }
  program.destroy()
  return result
}

const criteria = {
  CELoss: {
    own: (x: Tensor, y: Tensor) => supervisedLoss(x, y, { name: 'CELoss', kwargs: {} }, 255),
    operator: (x: Tensor, y: Tensor) => crossEntropyMean(x, y),
  },
  OHEM: {
    own: (x: Tensor, y: Tensor) => supervisedLoss(x, y, { name: 'OHEM', kwargs: { thresh: 0.5, min_kept: 7 } }, 255),
    operator: (x: Tensor, y: Tensor) => ohemCrossEntropy(x, y, { threshold: 0.5, minKept: 7 }).loss,
  },
}

for (const [name, { own, operator }] of Object.entries(criteria)) {
  test(`${name}: 0 without labeled pixels, else the bits of the operator`, async () => {
    for (const autocast of precisions) {
      const empty = await run(own, nothing, autocast)
      assert.equal(empty.value, [0])
      assert.ok(empty.gradient.every((value) => value === 0))
      const some = await run(own, labels, autocast)
      assert.ok(some.gradient.some((value) => value !== 0))
      assert.equal(some, await run(operator, labels, autocast))
    }
  })
}

for (const mode of ['pixelwise', 'pixelavg'] as const) {
  test(`consistency, ${mode}: 0 where all is padding`, async () => {
    const specs = {
      x: spec([...map, classes]),
      label: spec(map, 'u32'),
      confidence: spec(map),
      ignore: spec(map, 'u8'),
    }
    const body = ({ x, label, confidence, ignore }: Record<keyof typeof specs, Tensor>) => {
      const students = { strong: [x, x], perturbed: x, boxes: [ignore, ignore], ignore, ignoreMix: ignore } as const
      const pseudo = { label, confidence }
      const losses = consistencyLosses(students, pseudo, pseudo, { threshold: 0, mode })
      const value = weighted(losses)
      const [gradient] = grad(value, [x])
      if (!gradient) throw new Error('the loss does not depend on the logits')
      return { value, ratio: losses.maskRatio, gradient }
    }
    for (const autocast of precisions) {
      const program = await compile(device, specs, body, { autocast })
      const run = async (ignore: Uint8Array) => {
        program.run({ x: logits, label: Uint32Array.from(labels), confidence: new Float32Array(50).fill(0.5), ignore })
        return Promise.all((['value', 'ratio', 'gradient'] as const).map((name) => program.read(name)))
      }
      const [value, ratio, gradient] = await run(nothing)
      assert.equal([value?.[0], ratio?.[0]], [0, 0])
      // What is ignored stays in the sum of pixelavg, weighed by a mean over no pixel.
      assert.ok(gradient?.every((entry) => entry === 0))
      const [counted] = await run(new Uint8Array(50))
      assert.ok((counted?.[0] ?? 0) > 0.1)
      program.destroy()
    }
  })
}

test.run()
