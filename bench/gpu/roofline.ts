// node build/bench/gpu/roofline.js [--card NAME] [--crop PIXELS] [--batch IMAGES] [--model NAME] [--by WHAT] [--calls]: what
// the PrevMatch step with AMP does on a card that need not be there, and the least time that its data sheet allows: each
// dispatch takes the time of its products or that of its bytes. By operators, by shapes, or by kinds, as in
// docs/performance.md. Also how many kernels the tuner would measure.

import { createHash } from 'node:crypto'
import { Command, Option } from 'commander'
import { globals } from 'webgpu'
import { runCommand } from '#dist/command.js'
import { kernelOf, nameOf, promising, Tuning } from '#dist/engine/autotune.js'
import { dryDevice } from '#dist/engine/dry-device.js'
import { setKernelSelection } from '#dist/engine/kernel-selection.js'
import type { KernelInfo } from '#dist/engine/profile.js'
import { setRecorder } from '#dist/engine/replay.js'
import { Random } from '../../cases/case.js'
import { stepModels, stepTrainer } from '../../cases/steps.js'
import { randomBatch } from '../random-field.js'

/** Of data sheets: 10^12 operations a second of f16 added up in f32, of f32, and 10^9 bytes a second. */
const cards = {
  '3090': { half: 71, single: 35.6, bandwidth: 936, storage: 49152 },
  '4090': { half: 165, single: 82.6, bandwidth: 1008, storage: 49152 },
  h200: { half: 989, single: 66.9, bandwidth: 4800, storage: 49152 },
} as const

interface Options {
  readonly card: keyof typeof cards
  readonly crop: string
  readonly batch: string
  readonly model: keyof typeof stepModels
  readonly calls?: boolean
  readonly by: keyof typeof names
}

/** Kinds of dispatches: the first whose pattern finds something in a dispatch's kernel and operator. */
const kinds: readonly (readonly [name: string, pattern: RegExp])[] = [
  ["batch norm's statistics", /^batchNorm statistics|: batchNormStatistics$/],
  ['sums of backward passes', /^sum parts|^sum, sum|: (?!.*conv2d).*\+sum$/],
  ['input gradients', /: .*conv2dInputGrad/],
  ['weight gradients', /: .*conv2dWeightGrad/],
  ['convolutions', /: .*conv2d/],
  ['normalising, relu, residuals, and their gradients', /: .*(batchNorm|relu)/],
  ['all else', /./],
]

const kindOf = ({ kernel, op }: KernelInfo): string =>
  kinds.find(([, pattern]) => pattern.test(`${kernel}: ${op}`))?.[0] ?? ''

const names = {
  operators: ({ op }: KernelInfo) => op,
  kinds: kindOf,
  shapes: ({ op, kernel, shapes }: KernelInfo) => `${op}, ${kernel}: ${shapes}`,
} as const

/** A dry device of a card of NVIDIA's. */
function deviceOf(card: keyof typeof cards) {
  Object.assign(globalThis, globals)
  const limits = {
    maxStorageBuffersPerShaderStage: 16,
    maxComputeWorkgroupStorageSize: cards[card].storage,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxStorageBufferBindingSize: 2 ** 31 - 4,
    maxBufferSize: 2 ** 40,
    maxTextureDimension2D: 16384,
    minStorageBufferOffsetAlignment: 32,
    minUniformBufferOffsetAlignment: 64,
  }
  const features = new Set([
    'subgroups',
    'shader-f16',
    'timestamp-query',
    'subgroup-size-control',
    'chromium-experimental-subgroup-matrix',
  ])
  const gpu = { adapterInfo: { subgroupMinSize: 32, subgroupMaxSize: 32 }, features, limits }
  const adapter = { vendor: 'nvidia', architecture: '', device: card, driver: '', software: false }
  const matrixConfigs = [
    { factors: 'f16', sums: 'f32', M: 16, N: 16, K: 16 },
    { factors: 'f16', sums: 'f32', M: 16, N: 8, K: 16 },
    { factors: 'f16', sums: 'f32', M: 16, N: 8, K: 8 },
  ]
  const traits = { matrixConfigs }
  return dryDevice({ adapter, gpu: gpu as unknown as GPUDevice, traits }).device
}

/** Microseconds of a dispatch or copy by a data sheet. */
const timeOf = ({ multiplyAdds, bytes, kernel }: KernelInfo, card: (typeof cards)[keyof typeof cards]): number => {
  const rate = /matrix/.test(kernel) ? card.half : card.single
  return Math.max((2 * multiplyAdds) / rate / 1e6, bytes / card.bandwidth / 1e3)
}

const command = new Command('roofline')
  .addOption(new Option('--card <name>', 'whose data sheet counts').choices(Object.keys(cards)).default('4090'))
  .option('--crop <pixels>', 'side of the images', '321')
  .option('--batch <images>', 'labeled images, and as many unlabeled ones', '8')
  .addOption(new Option('--model <name>', 'model').choices(Object.keys(stepModels)).default('resnet50'))
  .addOption(new Option('--by <what>', 'how dispatches are grouped').choices(Object.keys(names)).default('operators'))
  .option('--calls', 'also show how many kernels each call has')
  .action((options: Options) =>
    runCommand(async () => {
      const card = cards[options.card]
      const device = deviceOf(options.card)
      const tuning = new Tuning()
      const seen = new Map<string, string[]>()
      setKernelSelection(device, async (trace) => {
        for (const call of await tuning.calls(trace, device.traits)) {
          const kernels = call.candidates.map(kernelOf)
          const sources = createHash('sha256')
            .update(JSON.stringify(kernels.map((each) => JSON.stringify(each)).sort()))
            .digest('hex')
          seen.set(
            `${nameOf(call)} ${sources}`,
            promising(call.candidates).map(({ name }) => name),
          )
        }
        return tuning.selectKernel
      })
      const [crop, batch] = [Number(options.crop), Number(options.batch)]
      const choice = stepModels[options.model]
      const trainer = await stepTrainer(device, choice, 'prevmatch', { crop, batch }, true)
      trainer.beginEpoch(true)
      const kernels: KernelInfo[] = []
      setRecorder(device.gpu, { submit: (_, run) => kernels.push(...run.kernels()) })
      await trainer.step(randomBatch(trainer.layout, batch, crop, choice.nclass, new Random('step')))
      const groups = new Map<string, { count: number; bytes: number; multiplyAdds: number; time: number }>()
      const all = { count: 0, bytes: 0, multiplyAdds: 0, time: 0 }
      for (const info of kernels) {
        const name = names[options.by](info)
        const group = groups.get(name) ?? { count: 0, bytes: 0, multiplyAdds: 0, time: 0 }
        groups.set(name, group)
        for (const sum of [group, all]) {
          sum.count++
          sum.bytes += info.bytes
          sum.multiplyAdds += info.multiplyAdds
          sum.time += timeOf(info, card)
        }
      }
      const show = (name: string, { count, bytes, multiplyAdds, time }: typeof all) =>
        console.log(
          `${String(count).padStart(5)} ${(bytes / 1e9).toFixed(2).padStart(8)} GB ` +
            `${((2 * multiplyAdds) / 1e12).toFixed(3).padStart(7)} TFLOP ${(time / 1000).toFixed(2).padStart(8)} ms  ${name}`,
        )
      for (const [name, group] of [...groups].sort(([, a], [, b]) => b.time - a.time).slice(0, 45)) show(name, group)
      show(`all, by the data sheet of ${options.card}`, all)
      const lists = [...seen.values()]
      const count = lists.reduce((sum, list) => sum + list.length, 0)
      console.log(`${lists.length} calls to tune, ${count} kernels; ${trainer.memory.planned / 2 ** 20} MiB planned`)
      if (options.calls) for (const [call, list] of seen) console.log(`${list.length}  ${call}: ${list.join('; ')}`)
      trainer.destroy()
      device.destroy()
    }),
  )
await command.parseAsync()
