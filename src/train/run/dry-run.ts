import { freemem } from 'node:os'
import { Tuning } from '../../engine/autotune.js'
import { type Device, megabytes } from '../../engine/device.js'
import { type DryBuffer, type DryUse, dryDevice, tracingDevice } from '../../engine/dry-device.js'
import { showSized, valuesBySize } from '../../engine/memory-report.js'
import { Store } from '../../engine/store.js'
import { chooseModel, createModel } from '../../models/index.js'
import { parametersOf } from '../../models/segmentation.js'
import { readBackbone } from '../checkpoint/read.js'
import type { Config } from '../config/load.js'
import { evaluationSamples } from '../data/dataset.js'
import { shortenedEpoch } from '../data/loader.js'
import type { Image } from '../data/pixels.js'
import { Evaluator } from '../evaluation/evaluator.js'
import { writeAtomically } from '../io/files.js'
import { PURPOSE, Random } from '../random.js'
import { usesHalf } from '../trainer/amp.js'
import { createTrainer } from '../trainer/create.js'
import type { Trainer } from '../trainer/trainer.js'
import { useTuning } from '../tuning/run-tuning.js'
import { TuningCache } from '../tuning/tuning-cache.js'
import { checkSamples, evenlySpaced, nothingToScore } from './check-samples.js'
import { evaluationOf } from './evaluation-of.js'
import { type Lists, readLists } from './lists.js'

export interface DryRunOptions {
  readonly config: Config
  /** false: earlier measurements of kernels are not looked at. */
  readonly tune?: boolean | undefined
  readonly traceNan?: boolean
  /** A file for the programs of a step as text. */
  readonly printProgram?: string | undefined
  readonly print: (line: string) => void
}

/** Validation images whose sizes are looked at. */
const maxImages = 400
const largestShown = 12

/**
 * Prints what a training will need of the device, by planning all of it on a device that allocates nothing. Nothing is
 * trained or written.
 *
 * @returns whether it fits, as far as the adapter tells
 * @throws UserError where a list or an image cannot be used, or a tensor is larger than the adapter binds, with what fits
 */
export async function dryRun(
  real: Device,
  { config: given, tune, traceNan = false, printProgram, print }: DryRunOptions,
) {
  const config = { ...given, amp: usesHalf(given.amp, real, print) }
  if (config.pretrained !== undefined) print(checkPretrained(config, config.pretrained))
  const lists = readLists(config, true)
  const labels = await checkSamples([...lists.labeled, ...lists.validation, ...lists.unlabeled], config)
  const note = nothingToScore(lists.validation, labels, config)
  if (note !== undefined) print(note)
  const { labeled, unlabeled, validation } = lists
  print(`data: ${labeled.length} labeled, ${unlabeled.length} unlabeled, ${validation.length} validation images`)
  const short = shortenedEpoch(labeled.length, unlabeled.length, config.batch_size)
  if (short !== undefined) print(short)
  const image = await largestImage(lists, config)
  useTuning(real, new Tuning(tune === false ? [] : new TuningCache(real.adapter, print).read()))
  const step = await planRun(real, config, image, traceNan)
  if (printProgram !== undefined) {
    writeAtomically(printProgram, [new TextEncoder().encode(step.trainer.text)])
    print(`programs of a step: ${printProgram}`)
  }
  for (const line of describe(step, config, image)) print(line)
  const { maxStorageBufferBindingSize: binding, maxBufferSize } = real.gpu.limits
  const largest = Math.max(0, ...[...step.use.buffers].map(({ bytes }) => bytes))
  print(
    `limits of the adapter: largest buffer ${megabytes(largest)} of ${megabytes(Math.min(binding, maxBufferSize))} ` +
      'that it binds at once: fits',
  )
  if (!real.adapter.software) {
    print(
      `memory: WebGPU does not tell how much this adapter has; it takes ${megabytes(step.use.peak)} and the driver's`,
    )
    return true
  }
  const free = process.availableMemory?.() ?? freemem()
  const fits = step.use.peak <= free
  print(
    `memory: ${megabytes(step.use.peak)} of ${megabytes(free)} that this machine has free, without what Node and the ` +
      `driver take: ${fits ? 'fits' : 'does not fit'}`,
  )
  const stages = Object.keys(step.trainer.model.stages)
  if (!fits) print(`remedy: ${await remedy(real, config, stages, image, traceNan, free)}`)
  return fits
}

/** Whether the backbone takes the weights of a file. Throws a UserError where it does not. */
function checkPretrained(config: Config, path: string): string {
  const model = createModel(new Store(tracingDevice(), 'model'), chooseModel(config))
  return readBackbone(model, path).line
}

/** The largest validation image, as far as they are looked at: evaluation takes memory by its size. */
async function largestImage({ validation }: Lists, config: Config): Promise<Image> {
  let largest: Image | undefined
  for await (const { image } of evaluationSamples(evenlySpaced(validation, maxImages), config)) {
    if (!largest || image.width * image.height > largest.width * largest.height) largest = image
  }
  if (!largest) throw new Error('unreachable: the list of validation images is not empty')
  return largest
}

interface PlannedRun {
  readonly use: DryUse
  readonly buffers: readonly DryBuffer[]
  readonly trainer: Trainer
  /** In which the image is evaluated. */
  readonly tiles: number
}

/** Does on a dry device what a training allocates: model, step, previous models, evaluation. */
async function planRun(real: Device, config: Config, image: Image, keepBefore: boolean): Promise<PlannedRun> {
  const { device, use } = dryDevice(real)
  const store = new Store(device, 'model')
  const model = createModel(store, chooseModel(config), new Random(config.seed, 0, PURPOSE.initialization))
  const sizes = { labeled: config.batch_size, unlabeled: config.batch_size }
  const crop = { height: config.crop_size, width: config.crop_size }
  const amp = config.amp === true
  const options = { iterationsPerEpoch: 1, ...sizes, ...crop, keepBefore, amp }
  const trainer = await createTrainer(device, model, config, options)
  const { snapshots } = trainer.run
  for (let i = 0; i < (snapshots?.most ?? 0); i++) snapshots?.push(store, String(i))
  let tiles = 1
  for (const { model: deployed } of trainer.run.deployed) {
    const evaluator = new Evaluator(device, deployed, evaluationOf(config, amp))
    tiles = (await evaluator.plan(image)).length
    await evaluator.predict(image)
  }
  return { use, buffers: [...use.buffers], trainer, tiles }
}

function describe({ use, buffers, trainer, tiles }: PlannedRun, config: Config, { width, height }: Image): string[] {
  const rows: string[] = []
  const sum = (wanted: (label: string) => boolean) => {
    const found = buffers.filter(({ label }) => wanted(label))
    return { count: found.length, bytes: found.reduce((total, { bytes }) => total + bytes, 0) }
  }
  const row = (what: string, { count, bytes }: { count: number; bytes: number }) => {
    if (count > 0) rows.push(`  ${megabytes(bytes).padStart(11)}  ${what}`)
    return bytes
  }
  const parameters = new Set(parametersOf(trainer.model).map(({ name }) => `model/${name}`))
  const { planned, live, unshared, dispatches } = trainer.memory
  const { snapshots } = trainer.run
  const furtherStores = trainer.savedStores.slice(1).map(({ store }) => store.label)
  const before = (label: string) => / before the step\//.test(label)
  const listed = [
    row(
      `parameters, ${parameters.size} tensors`,
      sum((label) => parameters.has(label)),
    ),
    row(
      'running statistics',
      sum((label) => label.startsWith('model/') && !parameters.has(label)),
    ),
    row(
      'momentum buffers',
      sum((label) => label.startsWith('momentum/')),
    ),
    row(
      `${snapshots?.label}, at most ${snapshots?.most}`,
      sum((label) => snapshots !== undefined && label.startsWith(`${snapshots.label}/`)),
    ),
    ...[...new Set([...furtherStores])].map((store) =>
      row(
        store,
        sum((label) => label.startsWith(`${store}/`)),
      ),
    ),
    row(
      '--trace-nan: weights, statistics and momentum buffers before the step',
      sum((label) => before(label)),
    ),
    row(
      `inputs and intermediates of the ${config.method} step: ${megabytes(planned)} of intermediates ` +
        `(${megabytes(live)} live at once, ${megabytes(unshared)} without sharing)`,
      sum((label) => /^(training buffer|workspace|batch)/.test(label)),
    ),
    row(
      `evaluation of an image of ${width}x${height}, the largest looked at${tiles > 1 ? `, in ${tiles} tiles` : ''}`,
      sum((label) => /^evaluation( buffer|\/)/.test(label)),
    ),
  ]
  const rest = use.peak - listed.reduce((total, bytes) => total + bytes, 0)
  row('uniforms and what is read back', { count: 1, bytes: rest })
  const largest = new Set(valuesBySize(trainer).map(showSized))
  return [
    `planned: ${use.pipelines} kernels; ${dispatches} dispatches and copies for a step; at most ${megabytes(use.peak)} on the device`,
    ...rows,
    'largest tensors of the step:',
    ...[...largest].slice(0, largestShown).map((text) => `  ${text}`),
  ]
}

/** What would fit into so many bytes. */
async function remedy(
  real: Device,
  config: Config,
  stages: readonly string[],
  image: Image,
  keepBefore: boolean,
  free: number,
): Promise<string> {
  const peakOf = async (changes: Partial<Config>) => {
    return (await planRun(real, { ...config, ...changes }, image, keepBefore)).use.peak
  }
  const found: string[] = []
  const checkpointed = await peakOf({ activation_checkpointing: [...stages] })
  if (checkpointed <= free)
    found.push(`activation_checkpointing: [${stages.join(', ')}] takes ${megabytes(checkpointed)}`)
  for (let batch = Math.floor(config.batch_size / 2); batch >= 1; batch = Math.floor(batch / 2)) {
    const peak = await peakOf({ batch_size: batch })
    if (peak > free) continue
    found.push(`batch_size ${batch} takes ${megabytes(peak)}`)
    break
  }
  for (let crop = Math.floor(config.crop_size / 8) * 4 + 1; crop >= 33; crop = Math.floor(crop / 8) * 4 + 1) {
    const peak = await peakOf({ crop_size: crop })
    if (peak > free) continue
    found.push(`crop_size ${crop} takes ${megabytes(peak)}`)
    break
  }
  return found.length > 0 ? found.join(', or ') : 'a smaller model: no smaller batch_size or crop_size fits'
}
