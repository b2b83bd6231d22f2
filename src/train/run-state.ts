import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Store } from '../engine/store.js'
import { infoOf, loadStore, loadTraining, saveCheckpoint, saveStore } from './checkpoint.js'
import type { Config } from './config.js'
import type { Sample } from './dataset.js'
import { UserError } from './error.js'
import type { MeansState } from './log.js'
import { type Checkpoint, readCheckpoint } from './state.js'
import type { Trainer } from './step.js'

/** Where a run stands between two steps, besides its tensors. */
export interface RunState {
  /** Steps done. */
  iteration: number
  /** Mean IoU in percent of the last validation, and the best one. */
  miou: number
  bestMiou: number
  /** Whether the last validation was a new best: the next epoch then keeps the model. */
  newBest: boolean
}

export const initialState = (): RunState => ({ iteration: 0, miou: 0, bestMiou: 0, newBest: false })

/** What `latest.safetensors` says, so that a run continues with the same bits. */
interface Saved extends RunState {
  /** Names of the previous models, files beneath `previous/`. */
  readonly previous: readonly string[]
  readonly means: MeansState
  /** Length of log.jsonl: what comes after it happened after the checkpoint. */
  readonly logBytes: number
  readonly fingerprint: Fingerprint
}

/** What must be the same for a run to continue. */
export type Fingerprint = Readonly<Record<string, unknown>>

/** Settings that do not change what a run computes. */
const harmless = [
  'data_root',
  'labeled_id_path',
  'unlabeled_id_path',
  'val_id_path',
  'workers',
  'log_interval',
  'save_map',
  'pretrained',
  'checkpoint',
]

const hashOf = (list: readonly Sample[]): string =>
  createHash('sha256')
    .update(list.map(({ name }) => `${name}\n`).join(''))
    .digest('hex')

/** The settings of a run and hashes of its lists. */
export function fingerprintOf(config: Config, lists: Readonly<Record<string, readonly Sample[]>>): Fingerprint {
  const settings = Object.entries(config).filter(([key]) => !harmless.includes(key))
  const hashes = Object.entries(lists).map(([name, list]) => [`list of ${name} images`, hashOf(list)])
  return Object.fromEntries([...settings, ...hashes])
}

/** Removes what an earlier run left in a folder, so that nothing of it is taken for the next one's. */
export function clearRun(folder: string): void {
  for (const file of existsSync(folder) ? readdirSync(folder) : []) {
    const isOurs =
      /^(latest\.safetensors|best\.safetensors|previous|log\.jsonl|report\.html|config\.yaml|kernels\.json)$/.test(file)
    if (isOurs || file.startsWith('events.out.tfevents.')) rmSync(join(folder, file), { recursive: true })
  }
}

const previousPath = (folder: string, name: string): string => join(folder, 'previous', `${name}.safetensors`)

/** Writes the newest previous model; it is written once. */
export async function savePrevious(folder: string, trainer: Trainer): Promise<void> {
  const name = trainer.previous.names.at(-1)
  if (name === undefined) return
  mkdirSync(join(folder, 'previous'), { recursive: true })
  await saveStore(previousPath(folder, name), trainer.previous.at(trainer.previous.length - 1))
}

/** Writes `latest.safetensors`, and drops previous models that neither it nor the run needs any more. */
export async function saveRun(
  folder: string,
  trainer: Trainer,
  state: RunState,
  rest: Pick<Saved, 'means' | 'logBytes' | 'fingerprint'> & Readonly<Record<string, unknown>>,
): Promise<void> {
  const previous = trainer.previous.names
  const path = join(folder, 'latest.safetensors')
  await saveCheckpoint(path, trainer.model, { ...state, ...rest, previous }, trainer.velocities)
  if (previous.length === 0) return
  const needed = new Set(previous.map((name) => `${name}.safetensors`))
  for (const file of readdirSync(join(folder, 'previous'))) {
    if (!needed.has(file)) rmSync(join(folder, 'previous', file))
  }
}

function parseSaved(checkpoint: Checkpoint, path: string): Saved {
  const info = infoOf(checkpoint, path)
  const numbers = ['iteration', 'miou', 'bestMiou', 'logBytes'].every((key) => typeof info[key] === 'number')
  const { previous, means, fingerprint, newBest } = info
  const names = Array.isArray(previous) && previous.every((name) => /^iteration-\d+$/.test(String(name)))
  const objects = [means, fingerprint].every((value) => typeof value === 'object' && value !== null)
  if (!numbers || !names || !objects || typeof newBest !== 'boolean') {
    throw new UserError(`${path} holds no state of a run: --resume takes the latest.safetensors of one`)
  }
  return info as unknown as Saved
}

/**
 * Brings a trainer to where a checkpoint was written.
 *
 * @throws UserError where the settings or lists differ from those of the run, naming them
 */
export function restoreRun(path: string, trainer: Trainer, fingerprint: Fingerprint): Saved {
  const checkpoint = readCheckpoint(path)
  const saved = parseSaved(checkpoint, path)
  const differs = (key: string) => JSON.stringify(saved.fingerprint[key]) !== JSON.stringify(fingerprint[key])
  const keys = [...new Set([...Object.keys(saved.fingerprint), ...Object.keys(fingerprint)])].filter(differs)
  if (keys.length > 0) {
    throw new UserError(
      `${path} was trained with another ${keys.join(', ')}: resume with the same settings, or start a new run`,
    )
  }
  loadTraining(checkpoint, trainer.model, trainer.velocities, path)
  const { device } = trainer.model.store
  for (const name of saved.previous) {
    const store = new Store(device, name)
    for (const variable of trainer.model.store.all()) store.declare(variable.name, variable.spec)
    loadStore(previousPath(dirname(path), name), store)
    trainer.previous.push(store, name)
    store.destroy()
  }
  trainer.iteration = saved.iteration
  return saved
}
