#!/usr/bin/env node
import { createCommand, runCommand } from './command.js'
import { type ConfigOptions, configOption, listOptions, overridesOf, setOption, wholeNumber } from './options.js'
import { type Config, loadConfig } from './train/config/load.js'
import { type DataReport, reportOf, showReport } from './train/data/checks.js'
import { readList, type Sample } from './train/data/dataset.js'
import { inspectSamples } from './train/data/inspect.js'
import { labelRules } from './train/data/labels.js'
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
    'of images, the sizes, files that cannot be read, and label values that stand for no class. Exit code 1 if a ' +
    'file cannot be used.',
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

/** Images that train and validate at once. */
function shared(lists: ReadonlyMap<string, readonly Sample[]>): string[] {
  const validation = new Set(lists.get('validation')?.map(({ image }) => image))
  return ['labeled', 'unlabeled'].flatMap((name) => {
    const both = lists.get(name)?.filter(({ image }) => validation.has(image)) ?? []
    return both[0]
      ? [`note: ${both.length} ${name} images are validation images, too, the first is ${both[0].name}`]
      : []
  })
}

async function check(config: Config, options: Options): Promise<Record<string, DataReport>> {
  const lists = new Map<string, Sample[]>()
  for (const { name, key, labels } of sources) {
    const source = config[key]
    if (source !== undefined) lists.set(name, readList(source, config.data_root, labels))
  }
  if (lists.size === 0) {
    throw new UserError('there is nothing to check: give --labeled-id-path, --unlabeled-id-path or --val-id-path')
  }
  const rules = labelRules(config)
  const reports: Record<string, DataReport> = {}
  for (const [name, samples] of lists) {
    const { workers } = options
    const inspections = await inspectSamples(samples, rules, { workers, onProgress: showProgress(name) })
    const report = reportOf(samples, inspections, config.class_names, rules, name !== 'unlabeled')
    reports[name] = report
    for (const line of showReport(name, report)) console.log(line)
  }
  for (const line of shared(lists)) console.log(line)
  return reports
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
  console.log('everything can be used')
})
