import { join } from 'node:path'
import type { PreparedFile } from '../checkpoint/write.js'
import { makeFolder } from '../io/files.js'
import type { ReportSample } from '../logging/report.js'
import { type BestFiles, namesOf } from './best-files.js'
import type { Run } from './run.js'
import { backupOf } from './run-state.js'

/**
 * Brings the folder up to date: all that a run resumes from, and what shows it.
 *
 * @param best the best models that are not written yet
 * @param samples for the report, after an evaluation
 * @returns those that still are not written
 */
export async function save(run: Run, best: BestFiles, samples?: readonly ReportSample[]): Promise<BestFiles> {
  const { options, trainer, state, means, logger, fingerprint, lock, files, failures, group } = run
  // What all ranks have is written by the first one.
  if (group.rank > 0) {
    state.iteration = trainer.iteration
    files.savedElsewhere(trainer.iteration)
    return new Map()
  }
  const { savePath: folder, config } = options
  const hasFolder = failures.attempt(folder, () => {
    makeFolder(folder)
    lock?.renew()
    run.writeSettings()
  })
  state.iteration = trainer.iteration
  let unwritten = best
  if (hasFolder) {
    const logBytes = logger.syncLog()
    if (samples) await logger.report(samples)
    const isLeft = ([name, file]: readonly [string, PreparedFile]): boolean => {
      const path = join(folder, name)
      return !failures.attempt(path, () => file.write(path, { backup: backupOf(path) }))
    }
    unwritten = new Map([...best].filter(isLeft))
    await files.save(trainer, state, { means: means.state, logBytes, fingerprint, ...namesOf(config) }, failures)
  }
  // Once an epoch is enough, when its validation is done.
  if (!state.validationDue) failures.reportAgain(files.lastGood)
  return unwritten
}
