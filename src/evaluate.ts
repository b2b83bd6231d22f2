#!/usr/bin/env node
import { join } from 'node:path'
import { Option } from 'commander'
import { createCommand, runCommand } from './command.js'
import { Tuning } from './engine/autotune.js'
import { open } from './engine/node.js'
import {
  ampOptions,
  type ConfigOptions,
  checkpointOption,
  configOption,
  flipOption,
  gpuOption,
  listOptions,
  noTuneOption,
  overridesOf,
  scalesOption,
  setOption,
} from './options.js'
import { epochOf, openModel, readModel } from './train/checkpoint/load-model.js'
import { loadConfig } from './train/config/load.js'
import { readList, samplesReadBy } from './train/data/dataset.js'
import { openPair } from './train/data/open-image.js'
import { colored, indexPng, outputNames, rgbPng } from './train/drawing/masks.js'
import { UserError } from './train/error.js'
import { confusionCsv, confusionSvg } from './train/evaluation/confusion.js'
import { type EvaluationOptions, Evaluator } from './train/evaluation/evaluator.js'
import { scoresOf } from './train/evaluation/metrics.js'
import { scoreTable } from './train/evaluation/metrics-table.js'
import { protocolOf } from './train/evaluation/protocol.js'
import { writeOutput } from './train/io/files.js'
import { Progress } from './train/logging/progress.js'
import { usesHalf } from './train/trainer/amp.js'
import { useTuning } from './train/tuning/run-tuning.js'
import { TuningCache } from './train/tuning/tuning-cache.js'

interface Options extends ConfigOptions {
  config: string
  ckptPath: string
  gpu?: string
  tune: boolean
  mode?: EvaluationOptions['mode']
  flip?: true
  scales?: number[]
  out: string
  saveMap?: string | true
}

const [amp, noAmp] = ampOptions()
const command = createCommand(
  'evaluate',
  'Scores a checkpoint on labeled images: IoU and accuracy per class, their means, confusion matrix.',
  {
    examples: [
      '--config configs/pascal.yaml --ckpt-path runs/first/best.safetensors --val-id-path val.txt',
      '--config configs/cityscapes.yaml --ckpt-path official.pth --mode sliding_window --save-map',
      '--config configs/pascal.yaml --ckpt-path best.safetensors --flip --scales 0.75,1,1.25',
    ],
    notes:
      'Large images are computed in tiles that overlap, as predict does; those of more than 67 megapixels (67108864) are ' +
      'also read by rows, up to 2147 megapixels.',
  },
)
  .addOption(configOption())
  .addOption(setOption())
  .addOption(checkpointOption())
  .addOption(listOptions.validation())
  .addOption(
    new Option(
      '--mode <mode>',
      'whole images, only the square of crop_size in their middle, or windows of crop_size (default: eval_mode of the configuration)',
    ).choices(['original', 'center_crop', 'sliding_window']),
  )
  .addOption(flipOption())
  .addOption(scalesOption())
  .option('--out <folder>', 'where confusion.csv, confusion.svg and scores.json go', 'evaluation')
  .option('--save-map [folder]', 'write predictions as index masks and in colours (default: maps in the --out folder)')
  .addOption(gpuOption())
  .addOption(amp)
  .addOption(noAmp)
  .addOption(noTuneOption())

/** Images that are compressed at a time. */
const writesAtOnce = 4

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const config = loadConfig(options.config, overridesOf(options))
  const { val_id_path: source, data_root: root, nclass, ignore_index: ignoreIndex, crop_size: window } = config
  if (!source) throw new UserError('no list of images to evaluate on: give --val-id-path')
  const samples = readList(source, root, 'required')
  const loaded = readModel(options.ckptPath, config)
  if (loaded.checkpoint.note) console.log(loaded.checkpoint.note)
  const { classNames, palette } = loaded
  const device = await open({ gpu: options.gpu })
  const print = (line: string) => console.log(line)
  print(`adapter: ${device.adapter.device} (${device.adapter.driver})`)
  print(`checkpoint: ${options.ckptPath}${epochOf(loaded)}`)
  if (options.tune) useTuning(device, new Tuning(new TuningCache(device.adapter, print).read()))
  const evaluation = { mode: options.mode ?? config.eval_mode, window, ignoreIndex, flip: options.flip ?? false }
  const half = usesHalf(config.amp, device, print)
  const inference = { ...evaluation, scales: options.scales ?? [1], amp: half }
  const model = openModel(device, loaded)
  print(`${samples.length} images, ${nclass} classes; protocol: ${protocolOf(inference, 0, model.input)}`)

  const evaluator = new Evaluator(device, model, inference)
  const saveMap = options.saveMap ?? (config.save_map || undefined)
  const maps = saveMap === true ? join(options.out, 'maps') : saveMap
  const names = outputNames(samples.map(({ name }) => name))
  const writes: Promise<void>[] = []
  const progress = new Progress('evaluation', samples.length, process.stdout)
  try {
    for await (const pair of samplesReadBy(openPair, samples, config, 4)) {
      const prediction = await evaluator.add(pair, maps !== undefined)
      if (prediction && maps !== undefined) {
        const mask = { ...prediction, data: Uint8Array.from(prediction.label) }
        const file = `${names[writes.length]}.png`
        const write = Promise.all([indexPng(mask), rgbPng(colored(mask, palette))]).then(([index, color]) => {
          writeOutput(join(maps, 'index'), file, index)
          writeOutput(join(maps, 'color'), file, color)
        })
        // A failure is reported when it is awaited, which may be after it happens.
        write.catch(() => {})
        writes.push(write)
        await writes.at(-writesAtOnce)
      }
      progress.tick()
    }
    await Promise.all(writes)
  } finally {
    progress.close()
  }
  const counts = await evaluator.confusion()
  const scores = scoresOf(counts, nclass)
  const protocol = protocolOf(inference, evaluator.tiledImages, model.input)
  progress.finish()
  evaluator.destroy()
  device.destroy()

  print('')
  for (const line of scoreTable(scores, classNames)) print(line)
  print(`protocol: ${protocol}`)
  const json = { protocol, checkpoint: options.ckptPath, images: samples.length, class_names: classNames, ...scores }
  writeOutput(options.out, 'scores.json', `${JSON.stringify(json, null, 2)}\n`)
  writeOutput(options.out, 'confusion.csv', confusionCsv(counts, classNames))
  writeOutput(options.out, 'confusion.svg', confusionSvg(counts, scores, classNames, protocol))
  print(
    `confusion matrix: ${join(options.out, 'confusion.svg')} and .csv${maps === undefined ? '' : `; masks: ${maps}`}`,
  )
})
