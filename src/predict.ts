#!/usr/bin/env node
import { join } from 'node:path'
import { Option } from 'commander'
import { createCommand, runCommand } from './command.js'
import { Tuning } from './engine/autotune.js'
import { open } from './engine/node.js'
import {
  ampOptions,
  checkpointOption,
  configOption,
  flipOption,
  gpuOption,
  noTuneOption,
  scalesOption,
  wholeNumber,
} from './options.js'
import { epochOf, openModel, readModel, showGeometry } from './train/checkpoint/load-model.js'
import { loadConfig } from './train/config/load.js'
import { type Photo, readPhoto } from './train/data/dataset.js'
import { findImages } from './train/data/find-images.js'
import type { Image } from './train/data/pixels.js'
import type { ExifOrientation } from './train/data/settings.js'
import { legendSvg } from './train/drawing/legend.js'
import { colored, indexPng, type NameRule, nameRuleNames, outputNames, overlay, rgbPng } from './train/drawing/masks.js'
import { UserError } from './train/error.js'
import { Predictor } from './train/evaluation/predictor.js'
import { writeOutput } from './train/io/files.js'
import { Progress } from './train/logging/progress.js'
import { usesHalf } from './train/trainer/amp.js'
import { useTuning } from './train/tuning/run-tuning.js'
import { TuningCache } from './train/tuning/tuning-cache.js'

interface Options {
  images: string[]
  ckptPath: string
  config?: string
  imgSize?: number
  flip?: true
  scales?: number[]
  names: NameRule
  out: string
  gpu?: string
  tune: boolean
  amp?: true
}

const [amp] = ampOptions()
const command = createCommand(
  'predict',
  'Segments images: masks of class indices, in the colours of the classes, and laid over the images.',
  {
    notes: [
      'Images are turned as their EXIF orientation says, and results lie as viewers show the images, unless --config says',
      'exif_orientation: stored. Large images are computed in tiles.',
      '',
      'Results are PNG files named after their images: by default a/x.jpg gives x.png. Where images would share a name,',
      'these take their ending, too, or their folder (x.jpg.png, a_x.jpg.png); the names of the others stay. With',
      '--names file or path every name holds them, so that no name depends on the other images.',
    ].join('\n'),
    examples: [
      '--images photos --ckpt-path runs/first/best.safetensors',
      '--images "photos/**/*.jpg" --ckpt-path best.safetensors --img-size 500 --out segmented',
      '--images street.png --ckpt-path official.pth --config configs/cityscapes.yaml',
    ],
  },
)
  .requiredOption('--images <paths...>', 'folder, pattern such as "photos/*.jpg", or files')
  .addOption(checkpointOption('; it also gives classes and colours'))
  .addOption(configOption('configuration of the training, for a checkpoint that does not name dilations or classes'))
  .option(
    '--img-size <pixels>',
    'shrink or enlarge to this long side for the model; results have the size of the image',
    wholeNumber(16, 16384),
  )
  .addOption(flipOption())
  .addOption(scalesOption())
  .addOption(
    new Option(
      '--names <rule>',
      'what results are called by: the name of the image without ending, with it, or with folders',
    )
      .choices(nameRuleNames)
      .default('stem'),
  )
  .option('--out <folder>', 'where masks/, colors/, overlays/ and legend.svg go', 'predictions')
  .addOption(gpuOption())
  .addOption(amp)
  .addOption(noTuneOption())

/** An image that is read ahead, or why it cannot be. */
type Read = Promise<Photo | UserError>

const readAhead = 4

async function* images(
  paths: readonly string[],
  orientation: ExifOrientation | undefined,
): AsyncGenerator<Photo | UserError> {
  const ahead: Read[] = []
  const read = (path: string): Read =>
    readPhoto(path, orientation).catch((error: unknown) => {
      if (error instanceof UserError) return error
      throw error
    })
  for (let next = 0, i = 0; i < paths.length; i++) {
    for (; next < paths.length && next < i + readAhead; next++) ahead.push(read(paths[next] ?? ''))
    const photo = await ahead.shift()
    if (photo) yield photo
  }
}

/** What is to be said of images that carry an EXIF orientation. */
function orientationNote(turned: readonly string[], orientation: ExifOrientation | undefined): string {
  const what = turned.length === 1 ? '1 image carries' : `${turned.length} images carry`
  const use =
    orientation === 'stored' ? 'not applied: masks follow the stored pixels' : 'applied: masks lie as it is shown'
  return `note: ${what} an EXIF orientation, such as ${turned[0]}; it is ${use}`
}

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const paths = findImages(options.images, (line) => console.log(`note: ${line}`))
  const config = options.config === undefined ? undefined : loadConfig(options.config)
  const orientation = config?.exif_orientation
  const loaded = readModel(options.ckptPath, config)
  if (loaded.checkpoint.note) console.log(loaded.checkpoint.note)
  const { classNames, palette } = loaded
  const device = await open({ gpu: options.gpu })
  console.log(`adapter: ${device.adapter.device} (${device.adapter.driver})`)
  const half = usesHalf(options.amp ?? false, device, console.log)
  const precision = half ? '; in half precision' : ''
  console.log(`checkpoint: ${options.ckptPath}${epochOf(loaded)}; ${classNames.length} classes${precision}`)
  if (!loaded.hasGeometry) console.log(`it does not say its ${showGeometry(loaded)}; --config gives others`)
  if (options.tune) useTuning(device, new Tuning(new TuningCache(device.adapter, console.log).read()))
  const { imgSize: longSide, flip, scales: factors, out } = options
  const predictor = new Predictor(device, openModel(device, loaded), { longSide, flip, scales: factors, amp: half })
  const names = outputNames(paths, options.names)
  const turned: string[] = []
  const progress = new Progress('prediction', paths.length, process.stdout)
  const unreadable: string[] = []
  let writing: Promise<unknown> = Promise.resolve()
  let at = 0
  try {
    for await (const photo of images(paths, orientation)) {
      const name = `${names[at++]}.png`
      if (photo instanceof UserError) {
        unreadable.push(photo.message)
        progress.line(`left out: ${photo.message}`)
        continue
      }
      const { image, exif } = photo
      if (exif > 1) turned.push(paths[at - 1] ?? '')
      const { width, height } = image
      const { tiles } = await predictor.plan(image)
      if (tiles.length > 1) progress.line(`${paths[at - 1]}: ${width}x${height} pixels in ${tiles.length} tiles`)
      const mask = await predictor.predict(image)
      // One image is written while the next one is computed.
      await writing
      writing = write(out, name, image, mask)
      writing.catch(() => {})
      progress.tick()
    }
    await writing
  } finally {
    progress.close()
  }
  progress.finish()
  predictor.destroy()
  device.destroy()
  const done = paths.length - unreadable.length
  if (done > 0) {
    writeOutput(out, 'legend.svg', legendSvg(classNames, palette))
    if (turned.length > 0) console.log(orientationNote(turned, orientation))
    console.log(`results: masks, colors, overlays and legend.svg in ${out}`)
  }
  if (unreadable.length > 0) {
    const [first = ''] = unreadable
    throw new UserError(`${unreadable.length} of ${paths.length} images could not be read, such as: ${first}`)
  }

  async function write(folder: string, name: string, image: Image, mask: Image): Promise<void> {
    const files = await Promise.all([
      indexPng(mask).then((bytes) => ['masks', bytes] as const),
      rgbPng(colored(mask, palette)).then((bytes) => ['colors', bytes] as const),
      rgbPng(overlay(image, mask, palette)).then((bytes) => ['overlays', bytes] as const),
    ])
    for (const [kind, bytes] of files) writeOutput(join(folder, kind), name, bytes)
  }
})
