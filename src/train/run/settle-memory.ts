import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Tuning } from '../../engine/autotune.js'
import { type Device, megabytes } from '../../engine/device.js'
import { parseBytes } from '../config/bytes.js'
import { type Config, loadConfig } from '../config/load.js'
import { UserError } from '../error.js'
import { useTuning } from '../tuning/run-tuning.js'
import { TuningCache } from '../tuning/tuning-cache.js'
import { type Alternative, MemoryPlanner, withChoice } from './memory-choice.js'
import type { PlanOptions } from './plan-run.js'

/** Makes programs that are only planned take the kernels that are known to be fast; nothing is measured. */
export function useKnownKernels(device: Device, tune: boolean | undefined, print: (line: string) => void): void {
  useTuning(device, new Tuning(tune === false ? [] : new TuningCache(device.adapter, print).read()))
}

/** The bytes that a configuration allows. */
export function limitOf({ memory }: Config): number | undefined {
  return memory === undefined ? undefined : parseBytes(memory)
}

/** What was chosen and why, in a line. */
export async function showChoice(planner: MemoryPlanner, chosen: Alternative, memory: string): Promise<string> {
  const first = await planner.alternative(planner.first)
  const line = `memory ${memory}: ${planner.show(chosen.choice)}; ${megabytes(chosen.bytes)} planned`
  if (JSON.stringify(first.choice) === JSON.stringify(chosen.choice)) return line
  return `${line} instead of ${megabytes(first.bytes)}, ${chosen.time.toFixed(2)} times the time of a step expected`
}

/** The error of a training that fits with no choice. */
export async function tooLittle(
  device: Device,
  planner: MemoryPlanner,
  options: PlanOptions,
  memory: string,
): Promise<UserError> {
  const { choice, bytes, parts } = await planner.least()
  const { config } = options
  const set = ['activation_checkpointing', 'micro_batch'].filter((key) => config[key as keyof Config] !== undefined)
  const largest = [...parts].sort((a, b) => b.bytes - a.bytes).slice(0, 4)
  const shown = largest.map(({ what, bytes }) => `${megabytes(bytes)} are ${what}`).join('; ')
  const remedies = [
    ...(set.length > 0 ? [`leave ${set.join(' and ')} open`] : []),
    ...(config.amp === false && device.traits.half ? ['allow half precision (amp: auto)'] : []),
    'reduce crop_size or what else takes most',
  ]
  return new UserError(
    `memory ${memory} is too little: the least is ${megabytes(bytes)}, with ${planner.show(choice)}, where ${shown}: ` +
      remedies.join(', or '),
  )
}

/**
 * A configuration with what fits into the memory that it allows, which is printed; unchanged where it allows any.
 * @throws UserError with the least that would do
 */
export async function settleMemory(
  device: Device,
  options: PlanOptions,
  tune: boolean | undefined,
  print: (line: string) => void,
): Promise<Config> {
  const { config } = options
  const limit = limitOf(config)
  if (limit === undefined || config.memory === undefined) return config
  print(`memory ${config.memory}: planning what fits`)
  useKnownKernels(device, tune, print)
  const planner = new MemoryPlanner(device, options)
  const chosen = await planner.choose(limit)
  if (!chosen) throw await tooLittle(device, planner, options, config.memory)
  print(await showChoice(planner, chosen, config.memory))
  return withChoice(config, chosen.choice)
}

/**
 * The configuration with what a run chose when it began, where it is resumed with the same limit and sizes; undefined where
 * there is none to keep.
 *
 * @param folder of the run
 */
export function keptChoice(folder: string, config: Config): Config | undefined {
  const path = join(folder, 'config.yaml')
  if (config.memory === undefined || !existsSync(path)) return undefined
  let before: Config
  try {
    before = loadConfig(path)
  } catch (error) {
    if (error instanceof UserError) return undefined
    throw error
  }
  const isSame = limitOf(before) === limitOf(config)
  if (!isSame || before.batch_size !== config.batch_size || before.crop_size !== config.crop_size) return undefined
  const micro = config.micro_batch ?? before.micro_batch
  return {
    ...config,
    amp: config.amp === 'auto' ? before.amp : config.amp,
    activation_checkpointing: config.activation_checkpointing ?? before.activation_checkpointing,
    ...(micro === undefined ? {} : { micro_batch: micro }),
  }
}
