import { makeFolder } from '../io/files.js'
import type { ReportSample } from '../logging/report.js'
import { type BestModels, namesOf } from './best-files.js'
import type { Run } from './run.js'

/**
 * Brings the folder up to date: all that a run resumes from, and what shows it.
 *
 * @param samples for the report, after an evaluation
 */
export async function save(run: Run, best: BestModels, samples?: readonly ReportSample[]): Promise<void> {
  const { options, trainer, state, means, logger, fingerprint, lock, files, failures, group } = run
  // What all ranks have is written by the first one.
  if (group.rank > 0) {
    state.iteration = trainer.iteration
    files.savedElsewhere(trainer.iteration)
    return
  }
  const { savePath: folder, config } = options
  const hasFolder = failures.attempt(folder, () => {
    makeFolder(folder)
    lock?.renew()
    run.writeSettings()
  })
  state.iteration = trainer.iteration
  if (hasFolder) {
    const logBytes = logger.syncLog()
    if (samples) await logger.report(samples)
    best.write(folder, failures)
    await files.save(trainer, state, { means: means.state, logBytes, fingerprint, ...namesOf(config) }, failures)
  }
  // Once an epoch is enough, when its validation is done.
  if (!state.validationDue) failures.reportAgain(files.lastGood)
}
