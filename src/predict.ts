#!/usr/bin/env node
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { runCommand } from './command.js'
import { Tuning } from './engine/autotune.js'
import { open } from './engine/node.js'
import { epochOf, openModel, readModel, showGeometry } from './train/checkpoint/load-model.js'
import { loadConfig } from './train/config/load.js'
import { readImage } from './train/data/dataset.js'
import { findImages } from './train/data/find-images.js'
import type { Picture } from './train/data/pixels.js'
import { legendPng } from './train/drawing/legends.js'
import { colored, indexPng, outputNames, overlay, rgbPng } from './train/drawing/masks.js'
import { UserError } from './train/error.js'
import { parseScales } from './train/evaluation/inference.js'
import { Predictor } from './train/evaluation/predictor.js'
import { writeOutput } from './train/io/output.js'
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
  out: string
  gpu?: string
  tune: boolean
  amp?: true
}

function side(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 16 || value > 16384) {
    throw new InvalidArgumentError('expects a whole number of pixels from 16 to 16384.')
  }
  return value
}

function scales(text: string): number[] {
  const parsed = parseScales(text)
  if (!parsed) throw new InvalidArgumentError('expects numbers from 0.1 to 4, such as 0.75,1,1.25.')
  return parsed
}

const command = new Command('predict')
  .description('Segments pictures: masks of class indices, in the colours of the classes, and laid over the pictures.')
  .requiredOption('--images <paths...>', 'folder, pattern such as "photos/*.jpg", or files')
  .requiredOption('--ckpt-path <file>', 'checkpoint, .safetensors or .pth; it also gives classes and colours')
  .option('--config <file>', 'configuration of the training, for a checkpoint that does not name dilations or classes')
  .option(
    '--img-size <pixels>',
    'shrink or enlarge to this long side for the model; results have the size of the picture',
    side,
  )
  .option('--flip', 'average the probabilities with those of the mirrored picture')
  .option('--scales <factors>', 'average the probabilities over sizes of the picture, such as 0.75,1,1.25', scales)
  .option('--out <folder>', 'where masks/, colors/, overlays/ and legend.png go', 'predictions')
  .option('--gpu <name>', "part of the adapter's name, such as nvidia or llvmpipe")
  .option('--amp', 'compute in half precision where the adapter can')
  .option('--no-tune', 'do not use measurements of kernels')
  .addHelpText(
    'after',
    `
Pictures are taken as their pixels are stored; EXIF rotation is not applied. Large ones are computed in tiles.

Examples:
  node dist/predict.js --images photos --ckpt-path runs/first/best.safetensors
  node dist/predict.js --images "photos/**/*.jpg" --ckpt-path best.safetensors --img-size 500 --out segmented
  node dist/predict.js --images street.png --ckpt-path official.pth --config configs/cityscapes.yaml`,
  )

/** A picture that is read ahead, or why it cannot be. */
type Read = Promise<Picture | UserError>

const readAhead = 4

async function* pictures(paths: readonly string[]): AsyncGenerator<Picture | UserError> {
  const ahead: Read[] = []
  const read = (path: string): Read =>
    readImage(path).catch((error: unknown) => {
      if (error instanceof UserError) return error
      throw error
    })
  for (let next = 0, i = 0; i < paths.length; i++) {
    for (; next < paths.length && next < i + readAhead; next++) ahead.push(read(paths[next] ?? ''))
    const picture = await ahead.shift()
    if (picture) yield picture
  }
}

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const paths = findImages(options.images)
  const trained = readModel(options.ckptPath, options.config === undefined ? undefined : loadConfig(options.config))
  const { classNames, palette } = trained
  const device = await open({ gpu: options.gpu })
  console.log(`adapter: ${device.adapter.device} (${device.adapter.driver})`)
  const amp = usesHalf(options.amp ?? false, device, console.log)
  const precision = amp ? '; in half precision' : ''
  console.log(`checkpoint: ${options.ckptPath}${epochOf(trained)}; ${classNames.length} classes${precision}`)
  if (!trained.hasGeometry) console.log(`it does not say its ${showGeometry(trained)}; --config gives others`)
  if (options.tune) useTuning(device, new Tuning(new TuningCache(device.adapter, console.log).read()))
  const { imgSize: longSide, flip, scales: factors, out } = options
  const predictor = new Predictor(device, openModel(device, trained), { longSide, flip, scales: factors, amp })
  const names = outputNames(paths)
  const progress = new Progress('prediction', paths.length, process.stdout)
  const unreadable: string[] = []
  let writing: Promise<unknown> = Promise.resolve()
  let at = 0
  try {
    for await (const picture of pictures(paths)) {
      const name = `${names[at++]}.png`
      if (picture instanceof UserError) {
        unreadable.push(picture.message)
        progress.line(`left out: ${picture.message}`)
        continue
      }
      const { width, height } = picture
      const { tiles } = await predictor.plan(picture)
      if (tiles.length > 1) progress.line(`${paths[at - 1]}: ${width}x${height} pixels in ${tiles.length} tiles`)
      const mask = await predictor.predict(picture)
      // One picture is written while the next one is computed.
      await writing
      writing = write(out, name, picture, mask)
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
    writeOutput(out, 'legend.png', await legendPng(classNames, palette))
    console.log(`results: masks, colors, overlays and legend.png in ${out}`)
  }
  if (unreadable.length > 0) {
    const [first = ''] = unreadable
    throw new UserError(`${unreadable.length} of ${paths.length} pictures could not be read, such as: ${first}`)
  }

  async function write(folder: string, name: string, picture: Picture, mask: Picture): Promise<void> {
    const files = await Promise.all([
      indexPng(mask).then((bytes) => ['masks', bytes] as const),
      rgbPng(colored(mask, palette)).then((bytes) => ['colors', bytes] as const),
      rgbPng(overlay(picture, mask, palette)).then((bytes) => ['overlays', bytes] as const),
    ])
    for (const [kind, bytes] of files) writeOutput(join(folder, kind), name, bytes)
  }
})
