#!/usr/bin/env node
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createCommand, runCommand } from './command.js'
import { compare, sameSteps } from './comparison/comparison.js'
import { palette } from './demo/classes.js'
import { writeScenes } from './demo/dataset.js'
import { showAdapter } from './engine/adapter.js'
import { open } from './engine/node.js'
import { gpuOption, methodsOption, seedOption, setOption } from './options.js'
import { loadConfig } from './train/config/load.js'
import { duration } from './train/logging/log.js'
import { createDisplay } from './train/logging/terminal.js'

/** Small scenes; the few labeled ones are the point. */
const scenes = { size: 128, labeled: 3, unlabeled: 320, validation: 60 }

const display = createDisplay(process.stdout)
const print = (line: string) => display.line(line)

interface Options {
  out: string
  seed: number
  methods: string[]
  gpu?: string
  set?: string[]
}

const command = createCommand(
  'demo',
  'Trains with a handful of labels, without and with unlabeled images, and shows the difference.',
  { examples: ['', '--seed 1 --out runs/demo-1', '--methods all'] },
)
  .option('--out <folder>', 'where data, runs and pictures go', 'demo')
  .addOption(seedOption('the scenes and of the training').default(0))
  .addOption(methodsOption(['supervised', 'prevmatch']))
  .addOption(gpuOption())
  .addOption(setOption('configs/demo.yaml'))

await runCommand(async () => {
  const { out, seed, methods, gpu, set = [] } = command.parse().opts<Options>()
  const begin = performance.now()
  const settings = fileURLToPath(new URL('../configs/demo.yaml', import.meta.url))
  const device = await open({ gpu })
  print(`adapter: ${showAdapter(device.adapter)}`)

  print(`painting ${scenes.labeled} labeled, ${scenes.unlabeled} unlabeled and ${scenes.validation} validation scenes`)
  const data = await writeScenes(join(out, 'data'), { seed, ...scenes })
  const paths = {
    data_root: data.root,
    labeled_id_path: data.labeled,
    unlabeled_id_path: data.unlabeled,
    val_id_path: data.validation,
  }
  const overrides = Object.entries({ ...paths, seed, palette }).map(([key, value]) => `${key}=${JSON.stringify(value)}`)
  const configOf = (method: string) =>
    loadConfig(settings, [...sameSteps(method), ...overrides, `method=${method}`, ...set])
  const title = 'What unlabeled images add'
  await compare(device, { title, methods, seeds: [seed], configOf, out, display, anew: true })
  device.destroy()

  print(`(${scenes.validation} held-out scenes, learned from ${scenes.labeled} labeled ones)`)
  print(`images: ${join(out, 'comparison.svg')}, page: ${join(out, 'comparison.html')}`)
  print(`${duration((performance.now() - begin) / 1000)} in all`)
})
