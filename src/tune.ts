#!/usr/bin/env node
import { Option } from 'commander'
import { createCommand, runCommand } from './command.js'
import { showAdapter } from './engine/adapter.js'
import { type Measurement, Tuning } from './engine/autotune.js'
import type { Device } from './engine/device.js'
import { kernelSelectionOf, setKernelSelection } from './engine/kernel-selection.js'
import { open } from './engine/node.js'
import { Store } from './engine/store.js'
import { backbones, createModel } from './models/index.js'
import { configOption, gpuOption, methodOption, setOption, sizeOption, wholeNumber } from './options.js'
import { type Config, loadConfig, withOverrides } from './train/config/load.js'
import { Evaluator } from './train/evaluation/evaluator.js'
import { duration } from './train/logging/log.js'
import { firstModelOf } from './train/methods/index.js'
import { evaluationOf } from './train/run/evaluation-of.js'
import { settleMemory } from './train/run/settle-memory.js'
import { usesHalf } from './train/trainer/amp.js'
import { createTrainer } from './train/trainer/create.js'
import { faultyKernels, measureUnknown } from './train/tuning/run-tuning.js'
import { TuningCache } from './train/tuning/tuning-cache.js'

interface Options {
  config?: string
  set?: string[]
  model?: string
  method?: string
  crop?: number
  batch?: number
  size?: [number, number]
  gpu?: string
  list?: true
  clear?: true
}

const command = createCommand(
  'tune',
  'Measures ahead which kernels are fastest on an adapter, for a training step and for evaluation. Training does so at ' +
    'its start where it runs on a GPU; what was measured once is never measured again.',
  {
    examples: [
      '--config configs/pascal.yaml',
      '--model resnet101 --crop 801 --batch 2 --size 1024x2048',
      '--list --gpu nvidia',
    ],
  },
)
  .addOption(configOption('YAML configuration of the training, see configs/'))
  .addOption(setOption())
  .addOption(new Option('--model <name>', 'backbone (without --config: resnet50)').choices([...backbones]))
  .addOption(methodOption())
  .option('--crop <pixels>', 'side of the training crops (without --config: 321)', wholeNumber(1))
  .option('--batch <images>', 'labeled images in a step (without --config: 8)', wholeNumber(1))
  .addOption(sizeOption('images that are evaluated (default: of the size of a crop)'))
  .addOption(gpuOption())
  .option('--list', 'show what was measured on the adapter, and measure nothing')
  .option('--clear', 'forget what was measured on the adapter before')

/** What to measure for; keys that no kernel depends on have any value. */
function configOf({ config, set = [], model, method, crop, batch }: Options): Config {
  const given = { backbone: model, method, crop_size: crop, batch_size: batch }
  const known = Object.entries(given).filter(([, value]) => value !== undefined)
  const overrides = [...set, ...known.map(([key, value]) => `${key}=${value}`)]
  if (config !== undefined) return loadConfig(config, overrides)
  const defaults = { nclass: 21, crop_size: 321, batch_size: 8, epochs: 1, lr: 0.001 }
  return withOverrides(defaults, overrides, 'the options')
}

const digits = (milliseconds: number): string => milliseconds.toFixed(milliseconds < 1 ? 3 : 2)

/** Kernels with their milliseconds, the chosen one marked. */
function showTimes({ kernels, milliseconds, choice, wrong = [] }: Measurement): string {
  const shown = kernels.map(({ name }, i) => {
    const time = milliseconds[i] ?? undefined
    const shown = time === undefined ? (wrong.includes(name) ? 'wrong' : 'impossible') : digits(time)
    return `${name === choice ? '*' : ''}${name} ${shown}`
  })
  return shown.join('  ')
}

const showCall = (call: string): string => call.replace(/"/g, '').replace(/:/g, ' ').replace(/[{}]/g, '')

const showRow = (measurement: Measurement): string =>
  `${showTimes(measurement).padEnd(36)}  ${showCall(measurement.call)}`

/** What the choices save in a program, by the times of the kernels alone. */
function showGain(what: string, measurements: readonly Measurement[]): string {
  const sum = (pick: (measurement: Measurement) => number) =>
    measurements.reduce((total, each) => total + (each.milliseconds[pick(each)] ?? 0), 0)
  const first = sum(() => 0)
  const chosen = sum(({ kernels, choice }) => kernels.findIndex(({ name }) => name === choice))
  const share = first > 0 ? Math.round(100 * (1 - chosen / first)) : 0
  return (
    `${what}: ${measurements.length} operators have a choice; ${digits(first)} ms with the first kernel of each, ` +
    `${digits(chosen)} ms with the chosen ones (${share} % less)`
  )
}

async function fill(device: Device, given: Config, size: [number, number], cache: TuningCache): Promise<void> {
  const begin = performance.now()
  const [rows, columns] = size
  const image = { height: rows, width: columns, data: new Uint8Array(rows * columns * 3) }
  const config = await settleMemory(device, { config: given, image, keepBefore: false }, undefined, console.log)
  const tuning = new Tuning(cache.read())
  const before = tuning.measurements.length
  measureUnknown(
    device,
    tuning,
    cache,
    (measurement, done, total) => {
      for (const line of faultyKernels(measurement)) console.log(line)
      console.log(`${String(done).padStart(String(total).length)}/${total}  ${showRow(measurement)}`)
    },
    {
      onCompiled: (done, total) => {
        if (total > 0 && (done === total || done % 50 === 0))
          console.log(`compiling kernels to measure ${done}/${total}`)
      },
    },
  )
  const measured = kernelSelectionOf(device)
  let seen: Measurement[] = []
  setKernelSelection(device, async (trace) => {
    const select = await measured(trace)
    seen.push(...(await tuning.of(trace, device.traits)))
    return select
  })
  const gains: string[] = []
  const note = (what: string) => {
    gains.push(showGain(what, seen))
    seen = []
  }
  const { batch_size: labeled, crop_size: height, crop_size: width, method } = config
  const store = new Store(device, 'model')
  const model = createModel(store, firstModelOf(config))
  const sizes = { labeled, unlabeled: labeled, height, width }
  const amp = usesHalf(config.amp, device, console.log)
  const trainer = await createTrainer(device, model, config, { iterationsPerEpoch: 1, amp, ...sizes })
  trainer.destroy()
  note(`training step, ${method}, ${labeled} images of ${height}x${width}`)
  const evaluator = new Evaluator(device, model, evaluationOf(config, amp))
  await evaluator.predict(image)
  evaluator.destroy()
  store.destroy()
  note(`evaluation of an image of ${rows}x${columns}`)
  for (const line of gains) console.log(line)
  const fresh = tuning.measurements.length - before
  const seconds = (performance.now() - begin) / 1000
  console.log(`${fresh} measured in ${duration(seconds)}, ${before} known before; kept in ${cache.path}`)
}

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const config = configOf(options)
  const device = await open({ gpu: options.gpu })
  console.log(`adapter: ${showAdapter(device.adapter)}`)
  const cache = new TuningCache(device.adapter, console.log)
  if (options.clear) cache.clear()
  if (options.list) {
    const known = cache.read()
    for (const measurement of known) console.log(showRow(measurement))
    console.log(`${known.length} measured, in ${cache.path}`)
  } else await fill(device, config, options.size ?? [config.crop_size, config.crop_size], cache)
  device.destroy()
})
