import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { readJson } from '../files.js'
import type { RecordedConfig, Recording } from './recording.js'

interface UniMatchV2Config extends RecordedConfig {
  readonly model: Readonly<Record<string, unknown>>
  readonly start_iter?: number
}

const lockedSuffix = '_locked'

/** UniMatch V2: a student and its mean teacher; a folder may hold a run with a locked encoder, of its first steps. */
export const unimatchV2Recording: Recording = {
  method: 'unimatch-v2',
  matches: ({ method }) => method === 'unimatch_v2',
  runs(_, folder) {
    const path = join(folder, `expected${lockedSuffix}.json`)
    const whole = { label: '', suffix: '' }
    if (!existsSync(path)) return [whole]
    const { iterations } = readJson<{ iterations: readonly unknown[] }>(path)
    return [whole, { label: 'locked', suffix: lockedSuffix, steps: iterations.length }]
  },
  settings: (config, { suffix }) => ({
    method: 'unimatch-v2',
    optimizer: { name: 'adamw', betas: [0.9, 0.999], eps: 1e-8 },
    unimatch_v2: { ema_decay: 0.996 },
    lock_backbone: suffix === lockedSuffix,
    model: { architecture: 'dpt', ...(config as UniMatchV2Config).model },
  }),
  firstIteration: (config) => (config as UniMatchV2Config).start_iter ?? 0,
  draws: ({ file }) => ({ drop_bits_taps: file.bytes('drop_bits'), drop_perm: file.floats('drop_perm') }),
  nameInCheckpoint: (name) => (name.startsWith('teacher/') ? `stores/${name}` : name),
  async quantities({ trainer }) {
    const [student, teacher] = await Promise.all(trainer.models.map(({ store }) => store.readAll()))
    let sum = 0
    for (const [name, values] of student ?? []) {
      const others = teacher?.get(name)
      for (let i = 0; i < values.length; i++) sum += ((values[i] ?? 0) - (others?.[i] ?? Number.NaN)) ** 2
    }
    return { ema_dist: Math.sqrt(sum) }
  },
}
