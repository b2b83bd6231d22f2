import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeScenes } from '#dist/demo/dataset.js'

const settings = (data: string): string => `
dataset: scenes
nclass: 6
crop_size: 33
data_root: ${data}
val_id_path: ${join(data, 'val.txt')}
labeled_id_path: ${join(data, 'labeled.txt')}
unlabeled_id_path: ${join(data, 'unlabeled.txt')}
epochs: 2
batch_size: 2
lr: 0.01
conf_thresh: 0.5
prev: { list_max_len: 2, model_num: 2, conf_thresh: 0.5 }
model: { stem: [4, 4, 8], planes: [4, 4, 8, 8], blocks: [1, 1, 1, 1], expansion: 2, reduce_channels: 4, aspp_channels: 8, fuse_channels: 8 }
dilations: [1, 2, 3]
log_interval: 1
`

export interface CommandResult {
  readonly code: number | null
  readonly stdout: string
  /** Lines of stderr without the driver's warnings. */
  readonly errors: readonly string[]
}

/** Runs a command of dist/ to its end. `env` is added to the environment. */
export function run(script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): CommandResult {
  const options = { encoding: 'utf8', env: { ...process.env, ...env } } as const
  const result = spawnSync(process.execPath, [join('dist', script), ...args], options)
  const errors = result.stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Warning: '))
  return { code: result.status, stdout: result.stdout, errors }
}

/**
 * A folder with a data set of eleven small scenes and a configuration `tiny.yaml` that trains a very small network on
 * it: two epochs of three steps.
 */
export async function tinyData(name: string) {
  const folder = mkdtempSync(join(tmpdir(), `atrous-${name}-`))
  const data = join(folder, 'data')
  await writeScenes(data, { seed: 3, size: 48, labeled: 2, unlabeled: 6, validation: 3 })
  const config = join(folder, 'tiny.yaml')
  writeFileSync(config, settings(data))
  // What was measured on this machine, or is not yet, must not matter to the tests.
  const trainArgs = (run: string, ...args: string[]) => {
    return ['--config', config, '--save-path', join(folder, run), '--no-tune', ...args]
  }
  return {
    folder,
    data,
    config,
    trainArgs,
    /** Trains into a folder beneath `folder`. */
    trainInto: (into: string, ...args: string[]) => run('train.js', trainArgs(into, ...args)),
    remove: () => rmSync(folder, { recursive: true }),
  }
}
