import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Checkpoint, readCheckpoint } from '../checkpoint/read.js'
import { checkVerified, infoOf, loadStore, loadTraining, prepareCheckpoint, prepareStore } from '../checkpoint/write.js'
import { DamagedFileError, UserError, WriteError } from '../error.js'
import { isTemporary, makeFolder, reasonOf, removeQuietly } from '../io/files.js'
import type { WriteFailures } from '../io/write-failures.js'
import type { MeansState } from '../logging/log.js'
import type { SnapshotList } from '../methods/snapshots.js'
import { isLossScale } from '../trainer/loss-scale.js'
import type { Trainer } from '../trainer/trainer.js'
import { addSnapshot, type HostState, hostStateOf, restoreHostState } from '../trainer/trainer-state.js'
import { changedSettings, changesEpochs, type Fingerprint, showChange } from './fingerprint.js'

/** Where a run stands between two steps, besides its tensors. */
export interface RunState {
  /** Steps done. */
  iteration: number
  /** Mean IoU in percent of the last validation, and the best one. */
  miou: number
  bestMiou: number
  /** Whether the last validation was a new best: the next epoch then keeps the model. */
  newBest: boolean
  /** The validation behind the last step is still to come. */
  validationDue?: boolean
  /** The best mean IoU of each of several rivals, by their names. */
  bestOf?: Record<string, number>
}

export const initialState = (): RunState => ({ iteration: 0, miou: 0, bestMiou: 0, newBest: false })

/** What `latest.safetensors` says, so that a run continues with the same bits. */
interface Saved extends RunState, HostState {
  /** Names of the method's snapshots, files beneath `previous/`. */
  readonly previous: readonly string[]
  readonly means: MeansState
  /** Length of log.jsonl: what comes after it happened after the checkpoint. */
  readonly logBytes: number
  readonly fingerprint: Fingerprint
  /** Absent in checkpoints of earlier versions. */
  readonly iterationsPerEpoch?: number
}

/** What a run resumes from. */
export interface Restored {
  readonly saved: Saved
  /** Settings that it did not have before, in words. */
  readonly changes: readonly string[]
}

/** Where the file is kept that a checkpoint replaced. */
export const backupOf = (path: string): string => path.replace(/(\.safetensors)?$/, '.bak.safetensors')

/** Where earlier versions kept it. */
const earlierBackupOf = (path: string): string => path.replace(/(\.safetensors)?$/, '.before.safetensors')

const isOurs =
  /^((latest|best(-[a-z]+\d*)?)(\.bak|\.before|\.damaged)?\.safetensors|previous|log\.jsonl|report\.html|config\.yaml|kernels\.json)$/

/** Removes what an earlier run left in a folder, so that nothing of it is taken for the next one's. */
export function clearRun(folder: string): void {
  for (const file of existsSync(folder) ? readdirSync(folder) : []) {
    if (isOurs.test(file) || file.startsWith('events.out.tfevents.')) rmSync(join(folder, file), { recursive: true })
  }
}

/** Removes the unfinished files of a process that was killed while it wrote them. */
export function clearUnfinished(folder: string): void {
  for (const at of [folder, join(folder, 'previous')]) {
    for (const file of existsSync(at) ? readdirSync(at) : []) {
      if (isTemporary(file)) removeQuietly(join(at, file))
    }
  }
}

const previousPath = (folder: string, name: string): string => join(folder, 'previous', `${name}.safetensors`)

/** The files from which a run can be resumed: `latest.safetensors`, the one before, and the method's snapshots. */
export class RunFiles {
  readonly latest: string
  /** Snapshots whose files are known to be good. */
  private readonly written = new Set<string>()
  /** Those that the last checkpoint needs, which is kept beside a new one; undefined where that is not known. */
  private needed: readonly string[] | undefined
  private iteration: number | undefined

  /** @param saved what the run resumes from */
  constructor(
    private readonly folder: string,
    saved?: Pick<Saved, 'previous' | 'iteration'>,
  ) {
    this.latest = join(folder, 'latest.safetensors')
    for (const name of saved?.previous ?? []) this.written.add(name)
    this.iteration = saved?.iteration
  }

  /** The last good checkpoint; undefined where there is none. */
  get checkpoint(): string | undefined {
    return this.iteration !== undefined && existsSync(this.latest) ? this.latest : undefined
  }

  /** What there is to go back to, in words. */
  get lastGood(): string {
    return this.checkpoint !== undefined
      ? `the last good checkpoint is ${this.latest} of iteration ${this.iteration}`
      : 'there is no checkpoint to go back to'
  }

  /** Another process of the training writes the checkpoint of so many steps. */
  savedElsewhere(iteration: number): void {
    this.iteration = iteration
  }

  /**
   * Writes the snapshots that have no file yet, then `latest.safetensors`, and drops snapshots that neither it nor the one
   * before it needs. Where the file holds the same iteration already, the one before it stays as it is.
   */
  async save(
    trainer: Trainer,
    state: RunState,
    rest: Pick<Saved, 'means' | 'logBytes' | 'fingerprint'> & Readonly<Record<string, unknown>>,
    failures: WriteFailures,
  ): Promise<void> {
    const { snapshots } = trainer.run
    const previous = snapshots?.names ?? []
    const { latest } = this
    if (snapshots && !(await this.saveSnapshots(snapshots, failures))) {
      // It would refer to a file that is not there.
      failures.attempt(latest, () => {
        throw new WriteError(latest, 'the snapshots that it names are not written')
      })
      return
    }
    const { validationDue, ...where } = state
    const info = {
      ...where,
      ...(validationDue ? { validationDue } : {}),
      ...rest,
      iterationsPerEpoch: trainer.options.iterationsPerEpoch,
      previous,
      // The first model's counters are in its state_dict.
      ...(await hostStateOf(trainer, trainer.models.slice(1))),
    }
    const file = await prepareCheckpoint(trainer.model, info, trainer.savedStores)
    const isAgain = this.iteration === state.iteration
    const backup = isAgain ? undefined : backupOf(latest)
    if (!failures.attempt(latest, () => file.write(latest, { backup })) || isAgain) return
    const { needed } = this
    this.needed = previous
    this.iteration = state.iteration
    if (needed) this.dropSnapshots(new Set([...previous, ...needed]))
  }

  private dropSnapshots(needed: ReadonlySet<string>): void {
    const folder = join(this.folder, 'previous')
    for (const file of existsSync(folder) ? readdirSync(folder) : []) {
      if (!needed.has(file.replace(/\.safetensors$/, ''))) removeQuietly(join(folder, file))
    }
  }

  /** Whether all snapshots have files. */
  private async saveSnapshots(snapshots: SnapshotList, failures: WriteFailures): Promise<boolean> {
    const folder = join(this.folder, 'previous')
    for (const [i, name] of snapshots.names.entries()) {
      const path = previousPath(this.folder, name)
      if (this.written.has(name) && existsSync(path)) continue
      const file = await prepareStore(snapshots.at(i))
      const isSaved = failures.attempt(folder, () => {
        makeFolder(folder)
        file.write(path)
      })
      if (!isSaved) return false
      this.written.add(name)
    }
    // One that could not be written may have left the list.
    return failures.attempt(folder, () => {})
  }
}

function parseSaved(checkpoint: Checkpoint, path: string): Saved {
  const info = infoOf(checkpoint, path)
  const numbers = ['iteration', 'miou', 'bestMiou', 'logBytes'].every((key) => typeof info[key] === 'number')
  const { previous, means, fingerprint, newBest, lossScale, updates, bestOf = {} } = info
  const counted = updates === undefined || (Number.isInteger(updates) && Number(updates) >= 0)
  const names = Array.isArray(previous) && previous.every((name) => /^iteration-\d+$/.test(String(name)))
  const length = info.iterationsPerEpoch
  const hasLength = length === undefined || (Number.isInteger(length) && Number(length) > 0)
  const objects = [means, fingerprint, bestOf].every((value) => typeof value === 'object' && value !== null)
  const scaled = lossScale === undefined || isLossScale(lossScale)
  if (!numbers || !counted || !names || !objects || !hasLength || !scaled || typeof newBest !== 'boolean') {
    throw new UserError(`${path} holds no state of a run: --resume takes the latest.safetensors of one`)
  }
  return info as unknown as Saved
}

/**
 * Brings a trainer to where a checkpoint was written, or the one before it if it is damaged; the damaged one is put aside
 * as `….damaged.safetensors`, so that it does not take the place of the good one.
 *
 * @throws UserError where settings differ without which the state means nothing, naming them, or where no checkpoint is
 * usable
 */
export function restoreRun(
  path: string,
  trainer: Trainer,
  fingerprint: Fingerprint,
  print: (line: string) => void,
): Restored {
  try {
    return restore(path, trainer, fingerprint)
  } catch (error) {
    const backup = [backupOf(path), earlierBackupOf(path)].find((file) => existsSync(file))
    if (!(error instanceof DamagedFileError) || backup === undefined) throw error
    print(`${error.message}: resuming from the checkpoint before it, ${backup}`)
    trainer.run.snapshots?.destroy()
    const restored = restore(backup, trainer, fingerprint)
    putAside(path)
    return restored
  }
}

function putAside(path: string): void {
  if (!existsSync(path)) return
  try {
    renameSync(path, path.replace(/(\.safetensors)?$/, '.damaged.safetensors'))
  } catch (error) {
    throw new WriteError(path, reasonOf(error))
  }
}

/** The iteration at which a run goes on: with other lists or batches, the same part of its epochs is done. */
function placeOf({ iteration, iterationsPerEpoch: before }: Saved, trainer: Trainer, path: string): number {
  const now = trainer.options.iterationsPerEpoch
  if (before !== undefined) return Math.floor((iteration / before) * now)
  throw new UserError(
    `${path} is of an earlier version, which did not say how long its epochs were: ` +
      'resume with the lists and the batch_size that it began with',
  )
}

function restore(path: string, trainer: Trainer, fingerprint: Fingerprint): Restored {
  const checkpoint = readCheckpoint(path)
  checkVerified(checkpoint.verified, path)
  const saved = parseSaved(checkpoint, path)
  const { forbidden, allowed } = changedSettings(saved.fingerprint, fingerprint)
  if (forbidden.length > 0) {
    throw new UserError(
      `${path} was trained with another ${forbidden.join(', ')}, without which its weights mean nothing: ` +
        'resume with the same, or start a new run',
    )
  }
  const iteration = changesEpochs(allowed) ? placeOf(saved, trainer, path) : saved.iteration
  loadTraining(checkpoint, trainer.model, trainer.savedStores, path)
  for (const name of saved.previous) {
    addSnapshot(trainer, name, (store) => loadStore(previousPath(dirname(path), name), store))
  }
  restoreHostState(trainer, iteration, saved)
  const changes = allowed.map((key) => showChange(key, saved.fingerprint, fingerprint))
  return { saved: { ...saved, iteration }, changes }
}
