import { join } from 'node:path'
import type { PreparedFile } from '../checkpoint/write.js'
import type { Config } from '../config/load.js'
import { paletteOf } from '../data/classes.js'
import { makeFolder } from '../io/files.js'
import type { ReportSample } from '../logging/report.js'
import type { Run } from './run.js'
import { backupOf } from './run-state.js'

/** What a checkpoint says of its classes, for those who predict with it. */
export const namesOf = (config: Config) => ({
  class_names: config.class_names,
  palette: paletteOf(config),
})

/**
 * Brings the folder up to date: all that a run resumes from, and what shows it.
 *
 * @param best the best model, if it is not written yet
 * @param samples for the report, after an evaluation
 * @returns the best model, if it still is not written
 */
export async function save(
  run: Run,
  best: PreparedFile | undefined,
  samples?: readonly ReportSample[],
): Promise<PreparedFile | undefined> {
  const { options, trainer, state, means, logger, fingerprint, lock, files, failures } = run
  const { savePath: folder, config } = options
  const hasFolder = failures.attempt(folder, () => {
    makeFolder(folder)
    lock.renew()
    run.writeSettings()
  })
  state.iteration = trainer.iteration
  let unwritten = best
  if (hasFolder) {
    const logBytes = logger.syncLog()
    if (samples) await logger.report(samples)
    const path = join(folder, 'best.safetensors')
    if (best && failures.attempt(path, () => best.write(path, { backup: backupOf(path) }))) unwritten = undefined
    await files.save(trainer, state, { means: means.state, logBytes, fingerprint, ...namesOf(config) }, failures)
  }
  // Once an epoch is enough, when its validation is done.
  if (!state.validationDue) failures.reportAgain(files.lastGood)
  return unwritten
}
