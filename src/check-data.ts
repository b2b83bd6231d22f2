#!/usr/bin/env node
import { createCommand, runCommand } from './command.js'
import { type ConfigOptions, configOption, listOptions, overridesOf, setOption, wholeNumber } from './options.js'
import { type Config, loadConfig } from './train/config/load.js'
import { type DataReport, type ListName, reportOf, showReport } from './train/data/checks.js'
import { packColor, paletteOf } from './train/data/classes.js'
import { readList, type Sample } from './train/data/dataset.js'
import { inspectSamples } from './train/data/inspect.js'
import { labelRules } from './train/data/label-rules.js'
import { type CheckedList, remarksOnLists } from './train/data/list-checks.js'
import { UserError } from './train/error.js'
import { writeAtomically } from './train/io/files.js'
import { duration } from './train/logging/log.js'

interface Options extends ConfigOptions {
  config: string
  workers?: number
  json?: string
}

const sources = [
  { name: 'labeled', key: 'labeled_id_path', labels: 'required' },
  { name: 'unlabeled', key: 'unlabeled_id_path', labels: 'unused' },
  { name: 'validation', key: 'val_id_path', labels: 'required' },
] as const

const command = createCommand(
  'check-data',
  'Reads every image and label of a configuration once and reports per class the share of the pixels and the number ' +
    'of images, the sizes, files that cannot be read, and label values that stand for no class; notes tell of images and ' +
    'labels that can be read but hardly learned from. Exit code 1 if a file cannot be used.',
  {
    examples: [
      '--config configs/custom.yaml',
      '--config configs/pascal.yaml --labeled-id-path splits/pascal/92/labeled.txt --json report.json',
      "--config configs/custom.yaml --set 'label_map={0: 0, 255: 1}'",
    ],
  },
)
  .addOption(configOption())
  .addOption(setOption())
  .addOption(listOptions.labeled())
  .addOption(listOptions.unlabeled())
  .addOption(listOptions.validation())
  .option('--workers <count>', 'threads (default: one per core)', wholeNumber(1))
  .option('--json <file>', 'also write the whole report there')

/** One line that is written over on a terminal; elsewhere nothing. */
function showProgress(name: string): ((done: number, total: number) => void) | undefined {
  if (!process.stderr.isTTY) return undefined
  const begin = performance.now()
  let shown = 0
  return (done, total) => {
    const now = performance.now()
    if (done === total) process.stderr.write('\r\x1b[K')
    else if (now - shown > 200) {
      shown = now
      const left = ((now - begin) / done / 1000) * (total - done)
      process.stderr.write(`\r\x1b[K${name}: ${done}/${total} images read, ${duration(left)} left`)
    }
  }
}

/** Colours that viewers show classes in where the configuration names none. */
function usualColors(config: Config): Map<number, number> {
  return new Map(paletteOf(config).map((color, k) => [packColor(color), k]))
}

async function check(config: Config, options: Options): Promise<Record<string, DataReport>> {
  const lists = new Map<ListName, Sample[]>()
  for (const { name, key, labels } of sources) {
    const source = config[key]
    if (source !== undefined) lists.set(name, readList(source, config.data_root, labels))
  }
  if (lists.size === 0) {
    throw new UserError('there is nothing to check: give --labeled-id-path, --unlabeled-id-path or --val-id-path')
  }
  const rules = labelRules(config)
  const checked = new Map<ListName, CheckedList>()
  for (const [name, samples] of lists) {
    const { workers } = options
    const looking = { workers, usualColors: usualColors(config), onProgress: showProgress(name) }
    const inspections = await inspectSamples(samples, rules, looking)
    const report = reportOf(samples, inspections, config.class_names, rules, name)
    checked.set(name, { samples, inspections, report })
    for (const line of showReport(name, report)) console.log(line)
  }
  for (const remark of remarksOnLists(checked, config.batch_size)) console.log(`note: ${remark}`)
  return Object.fromEntries([...checked].map(([name, { report }]) => [name, report]))
}

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const begin = performance.now()
  const reports = await check(loadConfig(options.config, overridesOf(options)), options)
  const all = Object.values(reports)
  if (options.json !== undefined) {
    writeAtomically(options.json, [Buffer.from(`${JSON.stringify(reports, null, 2)}\n`)])
  }
  const images = all.reduce((sum, report) => sum + report.images, 0)
  const wrong = all.reduce((sum, { problems, invalidValues }) => sum + problems.length + invalidValues.length, 0)
  const seconds = (performance.now() - begin) / 1000
  console.log(`${images} images read in ${duration(seconds)} (${(images / seconds).toFixed(0)} per second)`)
  if (wrong > 0) throw new UserError(`${wrong} ${wrong === 1 ? 'thing is' : 'things are'} wrong, see WRONG above`)
  const doubts = all.reduce((sum, report) => sum + report.doubts.length, 0)
  const notes = doubts === 1 ? 'a note above says' : `${doubts} notes above say`
  console.log(
    doubts === 0
      ? 'everything can be used'
      : `every file can be read, but ${notes} what may keep a model from learning`,
  )
})
