import { freemem } from 'node:os'
import { type Device, megabytes } from '../../engine/device.js'
import { tracingDevice } from '../../engine/dry-device.js'
import { showSized, valuesBySize } from '../../engine/memory-report.js'
import { Store } from '../../engine/store.js'
import { createModel, type ModelSpec } from '../../models/index.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { loadInit, readInit } from '../checkpoint/load-model.js'
import { readBackbone } from '../checkpoint/read.js'
import type { Config } from '../config/load.js'
import { shortenedEpoch } from '../data/loader.js'
import { writeAtomically } from '../io/files.js'
import { epochImages, modelsOf, pretrainedOf } from '../methods/index.js'
import { usesHalf } from '../trainer/amp.js'
import { checkSamples, nothingToScore } from './check-samples.js'
import { largestImage } from './largest-image.js'
import { readLists } from './lists.js'
import { alternativesTable, MemoryPlanner, withChoice } from './memory-choice.js'
import { memoryParts, type PlannedRun, type PlanOptions, planRun } from './plan-run.js'
import { limitOf, showChoice, tooLittle, useKnownKernels } from './settle-memory.js'

export interface DryRunOptions {
  readonly config: Config
  /** As in `TrainingOptions`. */
  readonly init?: string | undefined
  /** false: earlier measurements of kernels are not looked at. */
  readonly tune?: boolean | undefined
  readonly traceNan?: boolean
  /** A file for the programs of a step as text. */
  readonly printProgram?: string | undefined
  readonly print: (line: string) => void
}

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
  { config: given, init, tune, traceNan = false, printProgram, print }: DryRunOptions,
) {
  for (const [index, model] of modelsOf(given).entries()) {
    const path = pretrainedOf(given, index)
    if (init !== undefined) print(loadInit(planned(model), readInit(init, given)))
    else if (path !== undefined) print(checkPretrained(model, path))
  }
  const lists = readLists(given, true)
  const labels = await checkSamples([...lists.labeled, ...lists.validation, ...lists.unlabeled], given)
  const note = nothingToScore(lists.validation, labels, given)
  if (note !== undefined) print(note)
  const { labeled, unlabeled, validation } = lists
  print(`data: ${labeled.length} labeled, ${unlabeled.length} unlabeled, ${validation.length} validation images`)
  const epochOf = epochImages(given)
  const short = shortenedEpoch(labeled.length, unlabeled.length, given.batch_size, epochOf)
  if (short !== undefined) print(short)
  const image = await largestImage(lists, given)
  useKnownKernels(real, tune, print)
  const settled = await settleShown(real, { config: given, image, keepBefore: traceNan }, print)
  const options = { image, keepBefore: traceNan, config: { ...settled, amp: usesHalf(settled.amp, real, print) } }
  const run = await planRun(real, options)
  if (printProgram !== undefined) {
    writeAtomically(printProgram, [new TextEncoder().encode(run.trainer.text)])
    print(`programs of a step: ${printProgram}`)
  }
  for (const line of describe(run, options)) print(line)
  const largest = Math.max(0, ...[...run.use.buffers].map(({ bytes }) => bytes))
  print(
    `limits of the adapter: largest buffer ${megabytes(largest)} of ${megabytes(real.gpu.limits.maxBufferSize)}, of ` +
      `which it binds ${megabytes(real.traits.maxBinding)} at once: fits`,
  )
  if (!real.adapter.software) {
    print(
      `memory: WebGPU does not tell how much this adapter has; it takes ${megabytes(run.use.peak)} and the driver's`,
    )
    return true
  }
  const free = process.availableMemory?.() ?? freemem()
  const fits = run.use.peak <= free
  print(
    `memory: ${megabytes(run.use.peak)} of ${megabytes(free)} that this machine has free, without what Node and the ` +
      `driver take: ${fits ? 'fits' : 'does not fit'}`,
  )
  if (!fits) print(`remedy: ${await remedy(real, options, free)}`)
  return fits
}

/** The configuration with what fits into the memory that it allows; the alternatives are printed. */
async function settleShown(real: Device, options: PlanOptions, print: (line: string) => void): Promise<Config> {
  const { config } = options
  const limit = limitOf(config)
  if (limit === undefined || config.memory === undefined) return config
  const planner = new MemoryPlanner(real, options)
  const chosen = await planner.choose(limit)
  print(`alternatives for memory ${config.memory}; time is what a step is expected to take, in times of the first:`)
  for (const line of alternativesTable(planner, await planner.all(), chosen)) print(line)
  if (!chosen) throw await tooLittle(real, planner, options, config.memory)
  print(await showChoice(planner, chosen, config.memory))
  return withChoice(config, chosen.choice)
}

/** Whether the backbone takes the weights of a file. Throws a UserError where it does not. */
const checkPretrained = (model: ModelSpec, path: string): string => readBackbone(planned(model), path).line

const planned = (model: ModelSpec): SegmentationModel => createModel(new Store(tracingDevice(), 'model'), model)

function describe(run: PlannedRun, options: PlanOptions): string[] {
  const { use, trainer } = run
  const { planned, live, unshared, dispatches } = trainer.memory
  const largest = new Set(valuesBySize(trainer).map(showSized))
  return [
    `planned: ${use.pipelines} kernels; ${dispatches} dispatches and copies for a step; at most ${megabytes(use.peak)} on the device`,
    ...memoryParts(run, options).map(({ what, bytes }) => `  ${megabytes(bytes).padStart(11)}  ${what}`),
    `intermediates of the step: ${megabytes(planned)} (${megabytes(live)} live at once, ${megabytes(unshared)} without sharing)`,
    'largest tensors of the step:',
    ...[...largest].slice(0, largestShown).map((text) => `  ${text}`),
  ]
}

/** What would fit into so many bytes. */
async function remedy(real: Device, options: PlanOptions, free: number): Promise<string> {
  const { config } = options
  const peakOf = async (changes: Partial<Config>) => {
    return (await planRun(real, { ...options, config: { ...config, ...changes } })).use.peak
  }
  const found: string[] = []
  const planner = new MemoryPlanner(real, options)
  const chosen = await planner.choose(free)
  if (chosen) {
    const memory = `${Math.floor(free / 2 ** 20)}MiB`
    found.push(`--memory ${memory}, which takes ${planner.show(chosen.choice)}: ${megabytes(chosen.bytes)}`)
  }
  for (let batch = Math.floor(config.batch_size / 2); batch >= 1; batch = Math.floor(batch / 2)) {
    const peak = await peakOf({ batch_size: batch, micro_batch: undefined })
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
