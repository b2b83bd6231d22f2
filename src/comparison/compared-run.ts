import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { type Config, loadConfig } from '../train/config/load.js'
import { UserError } from '../train/error.js'
import { type LogEvent, numberOf, numbersIn, readLog, trainingSeconds } from '../train/logging/report-data.js'
import type { Display } from '../train/logging/terminal.js'
import { changedSettings, fingerprintOf, showChange } from '../train/run/fingerprint.js'
import { readLists } from '../train/run/lists.js'
import { train } from '../train/run/training.js'

/** An evaluation of a run; shares in percent. */
export interface ComparedScores {
  /** From 0. */
  readonly epoch: number
  readonly miou: number
  /** Per class. */
  readonly iou: readonly (number | undefined)[]
}

/** What a finished training says of itself. */
export interface ComparedRun {
  readonly method: string
  readonly seed: number
  readonly folder: string
  /** Of all evaluations, in their order. */
  readonly history: readonly { readonly iteration: number; readonly miou: number }[]
  readonly best: ComparedScores
  readonly last: ComparedScores
  /** Spent in training steps. */
  readonly seconds: number
}

/** A run of a comparison. */
export interface RunOptions {
  readonly config: Config
  readonly folder: string
  readonly display: Display
  readonly signal?: AbortSignal
  /** From its beginning, whatever the folder holds. */
  readonly anew?: boolean
}

const latestOf = (folder: string): string => join(folder, 'latest.safetensors')

/**
 * Trains a run to its end, from where it stands; a run that is at its end is only read.
 *
 * @returns undefined where it was interrupted
 * @throws UserError where the folder holds a run with other settings
 */
export async function comparedRun(
  device: Device,
  { config, folder, display, signal, anew = false }: RunOptions,
): Promise<ComparedRun | undefined> {
  if (!anew) checkSettings(config, folder)
  const finished = anew ? undefined : resultOf(config, folder)
  if (finished) {
    display.line(`done before: ${folder}`)
    return finished
  }
  const resume = !anew && hasCheckpoint(folder) ? latestOf(folder) : undefined
  const { interrupted } = await train(device, {
    config,
    savePath: folder,
    ...(resume ? { resume } : { overwrite: true }),
    ...(signal ? { signal } : {}),
    display,
  })
  if (interrupted) return undefined
  const result = resultOf(config, folder)
  if (!result) throw new Error(`the training in ${folder} ended without its last evaluation`)
  return result
}

/**
 * Whether a folder holds weights of a run. Where the file to resume from is the one that is missing, resuming says so:
 * nothing of the run is replaced.
 */
const hasCheckpoint = (folder: string): boolean =>
  existsSync(folder) && readdirSync(folder).some((name) => /^(latest|best).*\.safetensors$/.test(name))

/** Throws a UserError where a run of the folder has other settings or lists than now. */
function checkSettings(config: Config, folder: string): void {
  const path = join(folder, 'config.yaml')
  if (!existsSync(path)) return
  const [before, now] = [loadConfig(path), config].map((each) => fingerprintOf(each, { ...readLists(each, false) }))
  if (!before || !now) return
  const { forbidden, allowed } = changedSettings(before, now)
  const [key] = [...forbidden, ...allowed]
  if (key === undefined) return
  throw new UserError(
    `${folder} holds a run with other settings (now ${showChange(key, before, now)}): ` +
      'give the same ones, or another --out',
  )
}

/** The result of a run that is at its end; undefined where it is not. */
function resultOf({ method, seed, epochs }: Config, folder: string): ComparedRun | undefined {
  const path = join(folder, 'log.jsonl')
  if (!existsSync(path)) return undefined
  const events = readLog(path)
  const evaluations = events.filter(({ event }) => event === 'evaluation')
  const last = evaluations.at(-1)
  if (!last || numberOf(last, 'epoch') !== epochs - 1) return undefined
  const scores = evaluations.map(scoresOf)
  const best = scores.reduce((found, each) => (each.miou > found.miou ? each : found))
  const history = evaluations.map((event) => ({
    iteration: numberOf(event, 'iteration') ?? 0,
    miou: scoresOf(event).miou,
  }))
  return { method, seed, folder, history, best, last: scoresOf(last), seconds: trainingSeconds(events) }
}

const scoresOf = (event: LogEvent): ComparedScores => ({
  epoch: numberOf(event, 'epoch') ?? 0,
  miou: numberOf(event, 'miou') ?? 0,
  iou: numbersIn(event, 'iou') ?? [],
})
