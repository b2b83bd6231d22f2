#!/usr/bin/env node
import { join } from 'node:path'
import { InvalidArgumentError } from 'commander'
import { createCommand, runCommand, startOf } from './command.js'
import { compare, sameSteps } from './comparison/comparison.js'
import { showAdapter } from './engine/adapter.js'
import { open } from './engine/node.js'
import { listenForInterrupt } from './interrupt.js'
import {
  ampOptions,
  type ConfigOptions,
  configOption,
  gpuOption,
  listOptions,
  memoryOption,
  methodsOption,
  overridesOf,
  setOption,
} from './options.js'
import { loadConfig } from './train/config/load.js'
import { createDisplay } from './train/logging/terminal.js'
import { quotedArgument } from './train/run/resume-command.js'

interface Options extends ConfigOptions {
  config: string
  methods: string[]
  seeds: number[]
  out: string
  gpu?: string
}

function seedList(text: string): number[] {
  const seeds = text.split(',').map((seed) => Number(seed.trim() === '' ? Number.NaN : seed))
  if (seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0)) return [...new Set(seeds)]
  throw new InvalidArgumentError('expects whole numbers, such as 0,1,2.')
}

const [amp, noAmp] = ampOptions()
const command = createCommand(
  'compare',
  'Trains several methods on the same lists, labels, steps and network, and shows their scores side by side.',
  {
    examples: [
      '--config configs/camvid.yaml --methods supervised,unimatch,prevmatch --seeds 0,1,2 --out runs/comparison',
      '--config configs/camvid.yaml --methods all --set epochs=20 --out runs/short',
    ],
    notes:
      'Each run has a folder METHOD/seed-N in the --out folder. Called again, what is done is kept, and what is not goes ' +
      'on where it stopped. The --out folder gets comparison.html, comparison.svg and comparison.json, anew after each run.',
  },
)
  .addOption(configOption())
  .addOption(setOption())
  .addOption(methodsOption())
  .option('--seeds <numbers>', 'seeds with commas between', seedList, [0])
  .requiredOption('--out <folder>', 'where the runs and the comparison go')
  .addOption(listOptions.labeled())
  .addOption(listOptions.unlabeled())
  .addOption(listOptions.validation())
  .addOption(gpuOption())
  .addOption(amp)
  .addOption(noAmp)
  .addOption(memoryOption())

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const { config, methods: chosen, seeds, out } = options
  const display = createDisplay(process.stdout)
  const configOf = (method: string, seed: number) =>
    loadConfig(config, [...sameSteps(method), ...overridesOf({ ...options, method, seed })])
  // What is wrong with a method's settings shows before anything is trained.
  for (const method of chosen) configOf(method, seeds[0] ?? 0)
  const device = await open({ gpu: options.gpu })
  display.line(`adapter: ${showAdapter(device.adapter)}`)
  const interrupt = listenForInterrupt((line) => display.line(line))
  const { dataset } = configOf(chosen[0] ?? 'supervised', seeds[0] ?? 0)
  const title = `Methods on ${dataset}`
  const { signal } = interrupt
  const summaries = await compare(device, { title, methods: chosen, seeds, configOf, out, display, signal })
  device.destroy()
  if (!summaries) {
    const args = process.argv.slice(2).map(quotedArgument).join(' ')
    display.line(`stopped; to go on: ${startOf('compare')} ${args}`)
    process.exitCode = interrupt.exitCode
    return
  }
  display.line(`comparison: ${join(out, 'comparison.html')}, images: ${join(out, 'comparison.svg')}`)
})
