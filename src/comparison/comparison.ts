import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { openModel, readModel } from '../train/checkpoint/load-model.js'
import type { Config } from '../train/config/load.js'
import { paletteOf } from '../train/data/classes.js'
import { evaluationSamples } from '../train/data/dataset.js'
import { Evaluator } from '../train/evaluation/evaluator.js'
import { writeOutput } from '../train/io/files.js'
import type { Display } from '../train/logging/terminal.js'
import { epochImages } from '../train/methods/index.js'
import { evenlySpaced } from '../train/run/check-samples.js'
import { evaluationOf } from '../train/run/evaluation-of.js'
import { largestImage } from '../train/run/largest-image.js'
import { readLists } from '../train/run/lists.js'
import { planRun } from '../train/run/plan-run.js'
import { usesHalf } from '../train/trainer/amp.js'
import { type ComparedRun, comparedRun } from './compared-run.js'
import { contactSheet, type SheetRow } from './contact-sheet.js'
import { comparisonPage } from './page.js'
import { type MethodSummary, showSpread, summarize, summaryTable } from './summary.js'

/** What is compared, and where it goes. */
export interface ComparisonOptions {
  readonly title: string
  readonly methods: readonly string[]
  readonly seeds: readonly number[]
  /** The configuration of a run. */
  readonly configOf: (method: string, seed: number) => Config
  readonly out: string
  readonly display: Display
  readonly signal?: AbortSignal
  /** Trains all runs from their beginning, whatever the folders hold. */
  readonly anew?: boolean
}

/** What gives a method as many steps as the others have, as changes of a configuration. */
export const sameSteps = (method: string): readonly string[] =>
  epochImages({ method, epoch_of: undefined }) === 'unlabeled' ? [] : ['epoch_of=unlabeled']

/** Validation images that the contact sheet shows. */
const shownImages = 6

const folderOf = (out: string, method: string, seed: number): string => join(out, method, `seed-${seed}`)

/**
 * Trains every method with every seed, each run from where it stands, and writes `comparison.json`, `comparison.html` and
 * the contact sheet `comparison.svg` after each.
 *
 * @returns undefined where it was interrupted
 * @throws UserError before anything is trained where a run cannot be
 */
export async function compare(device: Device, options: ComparisonOptions): Promise<MethodSummary[] | undefined> {
  const { methods, seeds, configOf, out, display } = options
  const runs = seeds.flatMap((seed) => methods.map((method) => ({ method, seed, config: configOf(method, seed) })))
  for (const { config } of runs) readLists(config, true)
  const memory = new Map<string, number>()
  const done: ComparedRun[] = []
  const shown: Column[] = []
  let summaries: MethodSummary[] = []
  for (const [i, { method, seed, config }] of runs.entries()) {
    display.line(`\n== ${method}, seed ${seed}: run ${i + 1} of ${runs.length} ==`)
    const folder = folderOf(out, method, seed)
    const run = await comparedRun(device, { ...options, config, folder })
    if (!run) return undefined
    done.push(run)
    if (!memory.has(method)) memory.set(method, await plannedMemory(device, config))
    if (seed === seeds[0]) shown.push({ name: method, masks: await predictions(device, config, run.folder) })
    summaries = inOrder(summarize(done, memory), methods)
    await writeComparison(options, done, summaries, shown)
  }
  display.line('')
  for (const line of tableOf(options, summaries)) display.line(line)
  return summaries
}

const inOrder = (summaries: readonly MethodSummary[], methods: readonly string[]): MethodSummary[] =>
  methods.flatMap((name) => summaries.filter(({ method }) => method === name))

const tableOf = ({ configOf, methods, seeds }: ComparisonOptions, summaries: readonly MethodSummary[]): string[] =>
  summaryTable(summaries, configOf(methods[0] ?? '', seeds[0] ?? 0).class_names)

/** Bytes that a training takes of the device, as `--dry-run` counts them. */
async function plannedMemory(device: Device, config: Config): Promise<number> {
  const image = await largestImage(readLists(config, false), config)
  const amp = usesHalf(config.amp, device, () => {})
  const { use } = await planRun(device, { config: { ...config, amp }, image, keepBefore: false })
  return use.peak
}

async function writeComparison(
  options: ComparisonOptions,
  runs: readonly ComparedRun[],
  summaries: readonly MethodSummary[],
  shown: readonly Column[],
): Promise<void> {
  const { title, configOf, out } = options
  const [first] = runs
  if (!first) return
  const config = configOf(first.method, first.seed)
  const { class_names: classNames } = config
  const palette = paletteOf(config)
  const rows = await sheetRows(config, shown)
  const captions = Object.fromEntries(summaries.map(({ method, best }) => [method, `mIoU ${showSpread(best)}`]))
  const sheet = await contactSheet(rows, { classNames, palette, captions })
  writeOutput(out, 'comparison.svg', sheet)
  writeOutput(out, 'comparison.json', `${JSON.stringify({ class_names: classNames, summaries, runs }, null, 2)}\n`)
  writeOutput(
    out,
    'comparison.html',
    comparisonPage({ title, config, runs, summaries, classNames, palette, sheet, out }),
  )
}

/** What the best model of a method's first run makes of the images that are shown: class indices [height, width]. */
interface Column {
  readonly name: string
  readonly masks: readonly Uint8Array[]
}

const shownSamples = (config: Config) => evenlySpaced(readLists(config, false).validation, shownImages)

/** Some validation images with the columns of the methods. */
async function sheetRows(config: Config, columns: readonly Column[]): Promise<SheetRow[]> {
  const rows: SheetRow[] = []
  for await (const { image, label } of evaluationSamples(shownSamples(config), config)) {
    const predicted = columns.map(({ name, masks }) => ({ name, mask: masks[rows.length] ?? new Uint8Array() }))
    const { width, height } = image
    rows.push({ width, height, image: image.data, groundTruth: label.data, predictions: predicted })
  }
  return rows
}

async function predictions(device: Device, config: Config, folder: string): Promise<Uint8Array[]> {
  const model = openModel(device, readModel(join(folder, 'best.safetensors')))
  const evaluator = new Evaluator(
    device,
    model,
    evaluationOf(
      config,
      usesHalf(config.amp, device, () => {}),
    ),
  )
  const masks: Uint8Array[] = []
  for await (const { image } of evaluationSamples(shownSamples(config), config)) {
    masks.push(Uint8Array.from((await evaluator.predict(image)).label))
  }
  evaluator.destroy()
  model.store.destroy()
  return masks
}
