// Corrects a model by one labeled picture and others without labels, and saves it for predict.js. Run:
// node build/examples/fine-tune.js CHECKPOINT PICTURE MASK OUT [UNLABELED ...]
import { open } from 'atrous/node'
import { type Picture, Segmenter } from 'atrous/train'
import sharp from 'sharp'

const [checkpoint = '', path = '', mask = '', out = 'corrected.safetensors', ...others] = process.argv.slice(2)

async function pictureOf(file: string): Promise<Picture> {
  const { data, info } = await sharp(file)
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  return { data, width: info.width, height: info.height }
}

/** Grey levels are the classes, 255 is not known. */
const labelsOf = async (file: string): Promise<Uint8Array> => sharp(file).extractChannel(0).raw().toBuffer()

const device = await open()
const segmenter = await Segmenter.load(device, checkpoint)
const image = await pictureOf(path)
const labels = await labelsOf(mask)

async function agreement(): Promise<string> {
  const { labels: found } = await segmenter.segment(image)
  const known = [...labels.keys()].filter((pixel) => labels[pixel] !== 255)
  const right = known.filter((pixel) => found[pixel] === labels[pixel])
  return `${((100 * right.length) / known.length).toFixed(1)} % of the labeled pixels are right`
}

console.log(`before: ${await agreement()}`)
await segmenter.fineTune([{ image, labels }], {
  steps: 10,
  learningRate: 0.01,
  unlabeled: await Promise.all(others.map(pictureOf)),
  onProgress: ({ step, steps, loss }) => {
    if (step > 0) console.log(`step ${step} of ${steps}: loss ${loss.toFixed(4)}`)
  },
})
console.log(`after: ${await agreement()}`)
await segmenter.save(out)
segmenter.destroy()
device.destroy()
