// A process of `npm run bench -- --ranks N`, which mpirun starts: times training steps with and without the other ranks, and
// prints what rank 0 measured as JSON.
import { open } from '#dist/engine/node.js'
import { launchOf } from '#dist/train/distributed/launcher.js'
import { MpiGroup } from '#dist/train/distributed/mpi-group.js'
import { equalRanks } from '../cases/equal-ranks.js'
import { stepModels } from '../cases/steps.js'
import type { RankSetting, RankVariant } from './ranks.js'
import { measureStep } from './step.js'

const { model, method, crop, batch, steps, amp, gpu } = JSON.parse(process.argv[2] ?? '{}') as RankSetting
const launch = launchOf()
if (!launch) throw new Error('it is to be started by mpirun')
const group = await MpiGroup.open(launch)
// A rank has one core, on which a software driver computes.
process.env.LP_NUM_THREADS ??= '1'
const device = await open({ gpu })

const variants = {
  'each rank alone': {},
  'host calls that wait for nobody': { exchange: equalRanks(group.size) },
  'gradients alone (sync_batchnorm: false)': { exchange: group, sync_batchnorm: false },
  'gradients and batch norm': { exchange: group },
} as const

const measured: RankVariant[] = []
for (const [name, ranks] of Object.entries(variants)) {
  if (group.size === 1 && name !== 'each rank alone') continue
  await group.gatherValues(name)
  const before = { ...group.traffic }
  let cpuBefore = process.cpuUsage()
  const size = { crop, batch }
  const { milliseconds, hostCalls } = await measureStep(device, stepModels[model], method, size, {
    steps,
    amp,
    ranks,
    before: () => {
      Object.assign(before, group.traffic)
      cpuBefore = process.cpuUsage()
    },
  })
  const { user, system } = process.cpuUsage(cpuBefore)
  const { bytes, milliseconds: time } = group.traffic
  const perStep = (now: number, then: number) => (now - then) / steps
  const traffic = { bytes: perStep(bytes, before.bytes), exchanging: perStep(time, before.milliseconds) }
  measured.push({ name, milliseconds, cpu: (user + system) / 1000 / steps, exchanges: hostCalls, ...traffic })
}
if (group.rank === 0) console.log(`measured ${JSON.stringify(measured)}`)
device.destroy()
await group.close()
process.exit()
