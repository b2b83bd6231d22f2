import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type PreparedFile, prepareCheckpoint } from '../checkpoint/write.js'
import type { Config } from '../config/load.js'
import { paletteOf } from '../data/classes.js'
import type { WriteFailures } from '../io/write-failures.js'
import type { Run } from './run.js'
import { backupOf } from './run-state.js'
import { decisiveOf, type ScoredModel } from './validate.js'

/** Best models by the names of their files in the run's folder. */
export type BestFiles = ReadonlyMap<string, PreparedFile>

/** The best models of a run. They stay in memory, since what was written may be lost with its folder. */
export class BestModels {
  private readonly files = new Map<string, PreparedFile>()
  private readonly unwritten = new Set<string>()

  add(files: BestFiles): void {
    for (const [name, file] of files) {
      this.files.set(name, file)
      this.unwritten.add(name)
    }
  }

  /** Writes those that the folder lacks. */
  write(folder: string, failures: WriteFailures): void {
    for (const [name, file] of this.files) {
      const path = join(folder, name)
      if (!this.unwritten.has(name) && existsSync(path)) continue
      if (failures.attempt(path, () => file.write(path, { backup: backupOf(path) }))) this.unwritten.delete(name)
    }
  }
}

/** What a checkpoint says of its classes, for those who predict with it. */
export const namesOf = (config: Config) => ({
  class_names: config.class_names,
  palette: paletteOf(config),
})

/**
 * The models that are better than all before, after a validation: `best.safetensors`, and `best-NAME.safetensors` of each of
 * several rivals, whose best results are noted in the run's state.
 *
 * @param isBest whether the decisive model has the best result of the run
 */
export async function bestFilesOf(run: Run, scored: readonly ScoredModel[], isBest: boolean): Promise<BestFiles> {
  const { state, trainer, group } = run
  if (group.rank > 0) return new Map()
  const { validationDue: _, bestOf = {}, ...where } = state
  const files = new Map<string, PreparedFile>()
  const prepared = ({ model, scores: { miou } }: ScoredModel, bestMiou: number) =>
    prepareCheckpoint(model, { ...where, miou, bestMiou, ...namesOf(run.options.config) })
  const decisive = decisiveOf(run, scored)
  if (isBest) files.set('best.safetensors', await prepared(decisive, state.bestMiou))
  if (!trainer.run.rivals) return files
  for (const each of scored) {
    const { name, scores } = each
    if (scores.miou <= (bestOf[name] ?? -1)) continue
    bestOf[name] = scores.miou
    const same = each === decisive ? files.get('best.safetensors') : undefined
    files.set(`best-${name}.safetensors`, same ?? (await prepared(each, scores.miou)))
  }
  state.bestOf = bestOf
  return files
}
