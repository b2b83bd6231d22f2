// npm run bench -- [options]: times the operators at the shapes of DeepLabV3+, and whole training steps.
import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { runCommand } from '#dist/command.js'
import type { Device } from '#dist/engine/device.js'
import { open } from '#dist/engine/node.js'
import { UserError } from '#dist/train/error.js'
import type { Method } from '#dist/train/step.js'
import type { Case } from '../test/cases/case.js'
import { benchCases } from '../test/cases.js'
import { type LoaderMeasurement, measureLoader, measureWait, type WaitMeasurement, withPhotographs } from './loader.js'
import { type Measurement, measure, measurePeaks, type Pass, type Peaks, passesOf } from './measure.js'
import { measureStep, type StepMeasurement, stepModels } from './step.js'

interface Options {
  readonly crop?: number
  readonly batch?: number
  readonly only?: string
  readonly json?: string
  readonly gpu?: string
  readonly model: keyof typeof stepModels
}

/** A measurement beside the limit that bounds it. */
interface Row extends Measurement {
  readonly gflops?: number
  readonly gbps?: number
  /** Of the adapter's multiply-adds or of its copy bandwidth. */
  readonly share: number
}

const steps: readonly Method[] = ['supervised', 'unimatch', 'prevmatch']

function rated(measurement: Measurement, peaks: Peaks): Row {
  const { flops, bytes, milliseconds } = measurement
  if (flops === undefined) {
    const gbps = bytes / milliseconds / 1e6
    return { ...measurement, gbps, share: gbps / peaks.gbps }
  }
  const gflops = flops / milliseconds / 1e6
  return { ...measurement, gflops, share: gflops / peaks.gflops }
}

const digits = (value: number): string => value.toFixed(value < 10 ? 2 : 1)
const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

const columns = (operator: string, shape: string, ms: string, rate: string, share: string, kernel: string): string =>
  [operator.padEnd(32), shape.padEnd(34), ms.padStart(9), rate.padStart(14), share.padStart(7), `  ${kernel}`].join(' ')

function printRow({ op, shape, pass, kernel, milliseconds, gflops, gbps, share }: Row): void {
  const rate = gflops === undefined ? `${digits(gbps ?? 0)} GB/s` : `${digits(gflops)} GFLOP/s`
  const operator = pass === 'backward' ? `${op}, backward` : op
  console.log(columns(operator, shape, digits(milliseconds), rate, percent(share), kernel))
}

function printStep(step: StepMeasurement): void {
  const { method, milliseconds, compile, dispatches, planned, unshared, images, crop } = step
  console.log(
    `${method.padEnd(12)} ${digits(milliseconds).padStart(9)} ms  ${images.join(' + ')} images of ${crop}x${crop}, ` +
      `${dispatches} dispatches, compiled in ${(compile / 1000).toFixed(1)} s; ` +
      `memory ${mebibytes(planned)} planned, ${mebibytes(unshared)} without sharing`,
  )
}

function printLoader({ crop, bytes, fromFiles, fromCache }: LoaderMeasurement, wait: WaitMeasurement): void {
  const kilobytes = (bytes / 1000).toFixed(0)
  console.log(`\nloader, 500x375 photographs of ${kilobytes} kB, crop ${crop}, three views of each unlabeled image`)
  console.log(`  ${fromFiles.toFixed(1)} images per second per core from files, ${fromCache.toFixed(1)} from the cache`)
  const { workers, milliseconds, share } = wait
  console.log(
    `  PrevMatch step of batch ${wait.batch}, crop ${wait.crop}, reading files in ${workers} threads: ` +
      `${digits(milliseconds)} ms, of which ${percent(share)} waiting for data`,
  )
}

/** Calls `body` for each item; a failure is printed and counted, and the rest goes on. */
async function eachOf<T>(
  items: readonly T[],
  what: (item: T) => string,
  body: (item: T) => Promise<void>,
): Promise<number> {
  let failed = 0
  for (const item of items) {
    try {
      await body(item)
    } catch (error) {
      failed++
      console.log(`${what(item)}: FAILED: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return failed
}

interface Plan {
  readonly passes: readonly { row: Case; pass: Pass }[]
  readonly methods: readonly Method[]
  readonly loader: boolean
}

/** What to measure; throws where the pattern leaves nothing. */
function planOf(crop: number, batch: number, only: string): Plan {
  const wanted = (name: string) => name.toLowerCase().includes(only.toLowerCase())
  const rows = benchCases({ crop, batch })
  const passes = rows.flatMap((row) => passesOf(row).map((pass) => ({ row, pass })))
  const chosen = passes.filter(({ row, pass }) => wanted(`${row.op}, ${pass} ${row.name}`))
  const methods = steps.filter((method) => wanted(`training step ${method}`))
  const loader = wanted('loader')
  if (chosen.length + methods.length === 0 && !loader) {
    const names = [...new Set(rows.map(({ op }) => op))].join(', ')
    throw new UserError(
      `--only ${only}: nothing has that in its name; there are ${names}, 'training step' and 'loader'`,
    )
  }
  return { passes: chosen, methods, loader }
}

function checkTarget(json: string | undefined): void {
  if (json !== undefined && !existsSync(dirname(resolve(json)))) {
    throw new UserError(`--json ${json}: there is no folder ${dirname(resolve(json))}`)
  }
}

async function run(device: Device, options: Options): Promise<void> {
  const { software } = device.adapter
  const { crop = software ? 129 : 321, batch = software ? 4 : 8, only = '', model } = options
  const { passes, methods, loader } = planOf(crop, batch, only)
  console.log(`${device.adapter.device} (${device.adapter.driver}), crop ${crop}, batch ${batch}`)
  const peaks = await measurePeaks(device)
  console.log(`multiply-adds ${digits(peaks.gflops)} GFLOP/s, copy ${digits(peaks.gbps)} GB/s\n`)
  const rows: Row[] = []
  const measured: StepMeasurement[] = []
  if (passes.length > 0) console.log(columns('operator', 'shape', 'ms', 'rate', 'share', 'kernel'))
  const rowName = ({ row, pass }: { row: Case; pass: Pass }) => `${row.op}, ${pass}, ${row.name}`
  let failed = await eachOf(passes, rowName, async ({ row, pass }) => {
    const result = rated(await measure(device, row, pass), peaks)
    rows.push(result)
    printRow(result)
  })
  if (methods.length > 0) console.log(`\ntraining step, ${model} model`)
  // The small model has the size of the reference trajectories, whatever the operators are measured at.
  const size = model === 'small' ? { crop: 65, batch: 2 } : { crop, batch }
  failed += await eachOf(methods, String, async (method) => {
    const result = await measureStep(device, stepModels[model], method, size)
    measured.push(result)
    printStep(result)
  })
  let loaded: { loader: LoaderMeasurement; wait: WaitMeasurement } | undefined
  failed += await eachOf(loader ? ['loader'] : [], String, () =>
    withPhotographs(async (samples) => {
      const measurement = await measureLoader(samples, 321)
      loaded = { loader: measurement, wait: await measureWait(device, stepModels[model], samples, size) }
      printLoader(loaded.loader, loaded.wait)
    }),
  )
  if (options.json !== undefined) {
    const report = { adapter: device.adapter, crop, batch, peaks, operators: rows, model, steps: measured, ...loaded }
    const temporary = `${options.json}.tmp`
    writeFileSync(temporary, `${JSON.stringify(report, null, 2)}\n`)
    renameSync(temporary, options.json)
    console.log(`\nwrote ${options.json}`)
  }
  if (failed > 0) throw new UserError(`${failed} measurements failed`)
}

function positive(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('give a whole number above 0.')
  return value
}

const command = new Command('bench')
  .description(
    'Times every operator at the shapes of DeepLabV3+ with a ResNet-50, and training steps. GFLOP/s count each ' +
      'product within the map twice (multiply and add); GB/s count every tensor that is given or returned once. The ' +
      'share is that of the multiply-adds or of the copy bandwidth of the same adapter, measured at the start.',
  )
  .option('--crop <pixels>', 'side of the images (default: 129 on software adapters, 321 on GPUs)', positive)
  .option('--batch <images>', 'images in a batch (default: 4 on software adapters, 8 on GPUs)', positive)
  .option('--only <pattern>', 'what has this in its name, such as `conv2d`, `training step` or `loader`')
  .option('--json <file>', 'also write the results there')
  .option('--gpu <name>', 'part of the name of the adapter to use')
  .addOption(
    new Option('--model <name>', 'model of the training step').choices(Object.keys(stepModels)).default('small'),
  )
  .addHelpText(
    'after',
    `
Examples:
  npm run bench
  npm run bench -- --only conv2dWeightGrad --crop 321 --batch 2
  npm run bench -- --only 'training step' --model resnet50 --json step.json
  npm run bench -- --only loader`,
  )
  .action((options: Options) =>
    runCommand(async () => {
      checkTarget(options.json)
      const device = await open({ gpu: options.gpu })
      try {
        await run(device, options)
      } finally {
        device.destroy()
      }
    }),
  )
await command.parseAsync()
