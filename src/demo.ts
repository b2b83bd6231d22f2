#!/usr/bin/env node
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createCommand, runCommand } from './command.js'
import { writeScenes } from './demo/dataset.js'
import { classNames, palette } from './demo/scenes.js'
import { contactSheet, type SheetRow } from './demo/sheet.js'
import type { Device } from './engine/device.js'
import { open } from './engine/node.js'
import { Store } from './engine/store.js'
import { chooseModel, createModel } from './models/index.js'
import { gpuOption, seedOption, setOption } from './options.js'
import { loadCheckpoint } from './train/checkpoint/write.js'
import { type Config, loadConfig } from './train/config/load.js'
import { evaluationSamples, readList } from './train/data/dataset.js'
import { Evaluator } from './train/evaluation/evaluator.js'
import { writeAtomically } from './train/io/files.js'
import { duration } from './train/logging/log.js'
import { createDisplay } from './train/logging/terminal.js'
import { train } from './train/run/training.js'
import { usesHalf } from './train/trainer/amp.js'

/** Small scenes; the few labeled ones are the point. */
const scenes = { size: 64, labeled: 3, unlabeled: 200, validation: 60 }
const shown = 6
const methods = ['supervised', 'prevmatch'] as const
type Method = (typeof methods)[number]

const display = createDisplay(process.stdout)
const print = (line: string) => display.line(line)

/** Predictions of a trained model for the first validation scenes: [size, size] each. */
async function predictions(device: Device, config: Config, checkpoint: string): Promise<Uint8Array[]> {
  const store = new Store(device, 'prediction')
  const model = createModel(store, chooseModel(config))
  loadCheckpoint(checkpoint, model)
  const amp = usesHalf(config.amp, device, () => {})
  const evaluator = new Evaluator(device, model, { mode: 'original', amp })
  const masks: Uint8Array[] = []
  for await (const { image } of evaluationSamples(validationScenes(config), config)) {
    masks.push(Uint8Array.from((await evaluator.predict(image)).label))
  }
  evaluator.destroy()
  store.destroy()
  return masks
}

const validationScenes = (config: Config) =>
  readList(config.val_id_path ?? '', config.data_root, 'required').slice(0, shown)

async function writeSheet(
  path: string,
  config: Config,
  masks: Record<Method, Uint8Array[]>,
  mious: Record<Method, number>,
) {
  const rows: SheetRow[] = []
  for await (const { image, label } of evaluationSamples(validationScenes(config), config)) {
    const at = rows.length
    const columns = methods.map((name) => ({ name, mask: masks[name][at] ?? new Uint8Array(0) }))
    rows.push({ image: image.data, groundTruth: label.data, predictions: columns })
  }
  const captions = Object.fromEntries(methods.map((name) => [name, `mIoU ${mious[name].toFixed(1)}`]))
  const sheet = await contactSheet(rows, { size: scenes.size, classNames, palette, captions })
  writeAtomically(path, [Buffer.from(sheet)])
}

interface Options {
  out: string
  seed: number
  gpu?: string
  set?: string[]
}

const command = createCommand(
  'demo',
  'Trains with a handful of labels, without and with unlabeled images, and shows the difference.',
  { examples: ['', '--seed 1 --out runs/demo-1'] },
)
  .option('--out <folder>', 'where data, runs and the contact sheet go', 'demo')
  .addOption(seedOption('the scenes and of the training').default(0))
  .addOption(gpuOption())
  .addOption(setOption('configs/demo.yaml'))

await runCommand(async () => {
  const { out, seed, gpu, set = [] } = command.parse().opts<Options>()
  const begin = performance.now()
  const settings = fileURLToPath(new URL('../configs/demo.yaml', import.meta.url))
  const device = await open({ gpu })
  print(`adapter: ${device.adapter.device} (${device.adapter.driver})`)

  print(`painting ${scenes.labeled} labeled, ${scenes.unlabeled} unlabeled and ${scenes.validation} validation scenes`)
  const data = await writeScenes(join(out, 'data'), { seed, ...scenes })
  const paths = {
    data_root: data.root,
    labeled_id_path: data.labeled,
    unlabeled_id_path: data.unlabeled,
    val_id_path: data.validation,
  }
  const overrides = Object.entries({ ...paths, seed }).map(([key, value]) => `${key}=${JSON.stringify(value)}`)
  const configOf = (method: Method) => loadConfig(settings, [...overrides, `method=${method}`, ...set])

  const masks: Record<Method, Uint8Array[]> = { supervised: [], prevmatch: [] }
  const mious: Record<Method, number> = { supervised: 0, prevmatch: 0 }
  for (const method of methods) {
    print(`\n== ${method} ==`)
    const config = configOf(method)
    const savePath = join(out, method)
    const { scores } = await train(device, { config, savePath, overwrite: true, display })
    if (!scores) throw new Error('the training ended without an evaluation')
    mious[method] = scores.miou
    masks[method] = await predictions(device, config, join(savePath, 'latest.safetensors'))
  }
  const sheet = join(out, 'sheet.svg')
  await writeSheet(sheet, configOf('prevmatch'), masks, mious)
  device.destroy()

  print(`\nmean IoU on ${scenes.validation} held-out scenes, learned from ${scenes.labeled} labeled ones:`)
  for (const method of methods) print(`  ${method.padEnd(12)}${mious[method].toFixed(2)}`)
  print(`images: ${sheet}   (${duration((performance.now() - begin) / 1000)} in all)`)
})
