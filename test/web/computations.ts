// What a page and Node compute alike on the same adapter.
import { scene } from '#dist/demo/scenes.js'
import type { Device } from '#dist/engine/device.js'
import { compile } from '#dist/engine/program.js'
import { type Data, elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { matmul } from '#dist/kernels/matmul.js'
import { createModel } from '#dist/models/index.js'
import { parseConfig } from '#dist/train/config/parse.js'
import { fieldSpec, imagesOf } from '#dist/train/data/batch.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { sha256 } from '#dist/train/io/sha256.js'
import { firstModelOf, methodOf } from '#dist/train/methods/index.js'
import { PURPOSE, Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { smallModel } from '../support/small-model.js'

/** A hash of all bits of results. */
export const hashOf = (arrays: readonly ArrayBufferView[]): string =>
  sha256(arrays.map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength)))

type Values = Data | Float64Array

const uniform = (random: Random, count: number): Float32Array =>
  Float32Array.from({ length: count }, () => random.uniform(-1, 1))

async function product(device: Device): Promise<readonly Values[]> {
  const [m, k, n] = [37, 64, 45]
  const program = await compile(device, { a: spec([m, k]), b: spec([k, n]) }, ({ a, b }) => ({ c: matmul(a, b) }))
  const random = new Random(7)
  program.run({ a: uniform(random, m * k), b: uniform(random, k * n) })
  const c = await program.read('c')
  program.destroy()
  return [c]
}

const { replace_stride_with_dilation: _, dilations, ...widths } = smallModel

const config = parseConfig(
  {
    dataset: 'scenes',
    nclass: 6,
    method: 'prevmatch',
    seed: 1,
    epochs: 2,
    crop_size: 33,
    batch_size: 2,
    lr: 0.05,
    model: widths,
    dilations: [...dilations],
    conf_thresh: 0.5,
    prev: { conf_thresh: 0.5 },
  },
  'the test',
)

const newModel = (device: Device) =>
  createModel(new Store(device, 'model'), firstModelOf(config), new Random(1, 0, PURPOSE.initialization))

async function prediction(device: Device): Promise<readonly Values[]> {
  const model = newModel(device)
  const evaluator = new Evaluator(device, model, { mode: 'original', scores: true })
  const size = 64
  const { label, scores } = await evaluator.predict({ data: scene(1, 2, size).image, width: size, height: size })
  evaluator.destroy()
  model.store.destroy()
  return [label, scores ?? new Float32Array()]
}

/** Two steps, the second of them with a previous model. */
async function training(device: Device): Promise<readonly Values[]> {
  const model = newModel(device)
  const [images, size] = [2, 33]
  const sizes = { labeled: images, unlabeled: images, height: size, width: size }
  const trainer = await createTrainer(device, model, config, { iterationsPerEpoch: 1, ...sizes })
  const losses: number[] = []
  for (let step = 0; step < 2; step++) {
    trainer.beginEpoch(step > 0)
    const random = new Random(3, step)
    const fields = methodOf(config.method)
      .layout(config)
      .flatMap((stream) =>
        Object.entries(stream.fields).map(([name, field]) => {
          const { shape } = fieldSpec(field, imagesOf(stream, images), size, size)
          const most = field.view === 'label' ? 6 : field.view === 'cutmixBox' ? 2 : field.view === 'padding' ? 1 : 256
          return [name, Uint8Array.from({ length: elements(shape) }, () => random.integer(0, most))] as const
        }),
      )
    const { metrics } = await trainer.step(Object.fromEntries(fields))
    losses.push(metrics.total_loss ?? Number.NaN, metrics.loss_s1_prev ?? Number.NaN)
  }
  const weights = await model.store.readAll()
  trainer.destroy()
  model.store.destroy()
  return [Float64Array.from(losses), ...weights.values()]
}

export const computations = { product, prediction, training } as const
