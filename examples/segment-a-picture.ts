// Segments a picture and says what it shows. Run: node build/examples/segment-a-picture.js CHECKPOINT PICTURE
import { open } from 'atrous/node'
import { type Picture, Segmenter } from 'atrous/train'
import sharp from 'sharp'

const [checkpoint = 'best.safetensors', path = 'photo.jpg'] = process.argv.slice(2)

async function pictureOf(file: string): Promise<Picture> {
  const { data, info } = await sharp(file)
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  return { data, width: info.width, height: info.height }
}

const device = await open()
const segmenter = await Segmenter.load(device, checkpoint)
const { labels, confidence, width, height } = await segmenter.segment(await pictureOf(path), {
  onProgress: ({ compiled, kernels }) => {
    if (compiled === kernels) console.log(`${kernels} kernels are compiled`)
  },
})
console.log(`${path}: ${width}x${height} pixels`)
for (const [index, name] of segmenter.classes.entries()) {
  const pixels = [...labels.keys()].filter((pixel) => labels[pixel] === index)
  if (pixels.length === 0) continue
  const mean = pixels.reduce((sum, pixel) => sum + (confidence[pixel] ?? 0), 0) / pixels.length
  const share = (100 * pixels.length) / labels.length
  console.log(`  ${share.toFixed(1).padStart(5)} %  ${name}, with a confidence of ${mean.toFixed(2)}`)
}
segmenter.destroy()
device.destroy()
