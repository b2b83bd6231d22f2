// node build/test/soak/evaluation.soak.js [--images N]
//
// Evaluations of images of random sizes, each with a program of its own. Without its garbage, the memory of process and
// device must be as flat in the second half as in the first.
import { parseArgs } from 'node:util'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { chooseModel, createModel } from '#dist/models/index.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { Random } from '#dist/train/random.js'
import { MemoryLog } from './memory.js'

/** MiB from the first half to the second; the latest programs are kept, whose uniforms are those of their sizes. */
const ALLOWED = { process: 16, device: 0.2 }
const SAMPLES = 20
const [SMALLEST, LARGEST] = [16, 128]

const { values } = parseArgs({ options: { images: { type: 'string', default: '500' } } })
const images = Number(values.images)
const device = await open()
try {
  const memory = new MemoryLog(device)
  const model = createModel(
    new Store(device, 'model'),
    chooseModel({
      nclass: 6,
      dilations: [1, 2, 3],
      model: {
        ...{ stem: [4, 4, 8], planes: [4, 4, 8, 8], blocks: [1, 1, 1, 1], expansion: 2 },
        ...{ reduce_channels: 4, aspp_channels: 8, fuse_channels: 8 },
      },
    }),
    new Random(1),
  )
  const evaluator = new Evaluator(device, model, { mode: 'original' })
  const random = new Random(2)
  const size = () => random.integer(SMALLEST, LARGEST + 1)
  // The largest size comes first: buffers grow to what it needs.
  for (let i = 0; i < images; i++) {
    const [width, height] = i === 0 ? [LARGEST, LARGEST] : [size(), size()]
    const image = { width, height, data: new Uint8Array(width * height * 3).fill(i) }
    const label = { width, height, data: new Uint8Array(width * height).fill(i % 6) }
    await evaluator.add({ image, label }, true)
    if ((i + 1) % Math.ceil(images / SAMPLES) === 0) memory.take(i + 1, 'images')
  }
  memory.checkFlat('evaluation', ALLOWED)
  evaluator.destroy()
  model.store.destroy()
  memory.take(images, 'after destroy')
  const left = memory.samples.at(-1)
  if (left?.buffers !== 0) throw new Error(`${left?.buffers} buffers are left behind`)
} finally {
  device.destroy()
}
