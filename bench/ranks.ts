import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { UserError } from '#dist/train/error.js'
import type { stepModels } from '../cases/steps.js'

/** What the processes of a measurement are told. */
export interface RankSetting {
  readonly model: keyof typeof stepModels
  readonly method: string
  readonly crop: number
  readonly batch: number
  readonly steps: number
  readonly amp: boolean
  readonly gpu?: string | undefined
}

/** A way to train on several ranks, as rank 0 sees it. */
export interface RankVariant {
  readonly name: string
  /** Of a step, the median. */
  readonly milliseconds: number
  /** Milliseconds of CPU time of a rank in a step, which other work on the machine changes little. */
  readonly cpu: number
  /** Host calls of a step. */
  readonly exchanges: number
  /** That a rank gives to others in a step, and milliseconds from the begin of each exchange to its end, added up. */
  readonly bytes: number
  readonly exchanging: number
}

export interface RankMeasurement extends RankSetting {
  readonly ranks: number
  /** One rank that has the machine for itself. */
  readonly single: RankVariant
  readonly variants: readonly RankVariant[]
}

const script = fileURLToPath(new URL('./ranks-process.js', import.meta.url))

/** Starts so many processes, each bound to a core. */
function start(ranks: number, setting: RankSetting): readonly RankVariant[] {
  const allowed = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' }
  const args = ['--bind-to', 'core', '-n', String(ranks), process.execPath, script, JSON.stringify(setting)]
  const result = spawnSync('mpirun', args, { encoding: 'utf8', env: { ...process.env, ...allowed } })
  if (result.error) throw new UserError(`--ranks needs mpirun, as in Debian's openmpi-bin: ${result.error.message}`)
  const [, json] = /^.*measured (\[.*\])/m.exec(result.stdout) ?? []
  if (result.status !== 0 || json === undefined) throw new UserError(`mpirun: ${result.stderr.trim() || result.stdout}`)
  return JSON.parse(json)
}

/** Times training steps on several ranks of this machine, one core each, beside one rank on one core. */
export function measureRanks(ranks: number, setting: RankSetting): RankMeasurement {
  const [single] = start(1, setting)
  if (!single) throw new Error('unreachable: one rank measures a step')
  return { ...setting, ranks, single, variants: start(ranks, setting) }
}

export function printRanks({ ranks, single, variants, method, crop, batch, model }: RankMeasurement): void {
  const time = (milliseconds: number) => `${milliseconds.toFixed(1)} ms`
  console.log(
    `\n${method}, ${model} model, ${batch} labeled images of ${crop}x${crop} on each of ${ranks} ranks, a core each`,
  )
  console.log('  wall time, CPU time of a rank')
  const times = (variant: RankVariant) => `${time(variant.milliseconds).padStart(11)} ${time(variant.cpu).padStart(11)}`
  console.log(`${times(single)}  one rank, nothing beside it`)
  for (const variant of variants) {
    const { name, milliseconds, exchanges, bytes, exchanging } = variant
    const traffic = exchanges === 0 ? '' : `; ${exchanges} exchanges`
    const sent = bytes === 0 ? '' : ` of ${(bytes / 2 ** 20).toFixed(2)} MiB in all, ${time(exchanging)} on their way`
    const scaling = `${((100 * single.milliseconds) / milliseconds).toFixed(0)} % of the images per rank and second`
    console.log(`${times(variant)}  ${name}: ${scaling}${traffic}${sent}`)
  }
  const named = (part: string) => variants.find(({ name }) => name.startsWith(part))
  const [calls, all] = [named('host calls'), named('gradients and')]
  if (!calls || !all) return
  const exposed = Math.max(0, all.milliseconds - calls.milliseconds)
  const hidden = Math.max(0, 1 - exposed / Math.max(exposed, all.exchanging))
  console.log(
    `${time(exposed).padStart(11)} ${''.padStart(11)}  of a step are added by waiting for other ranks: ${(100 * hidden).toFixed(0)} % of the time ` +
      'on their way is hidden behind other work',
  )
}
