// npm run bench -- [options]: times the operators at the shapes of DeepLabV3+, and whole training steps.
import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { runCommand } from '#dist/command.js'
import { Tuning } from '#dist/engine/autotune.js'
import type { Device } from '#dist/engine/device.js'
import { open } from '#dist/engine/node.js'
import { chromeTrace, type Profile, profileTable } from '#dist/engine/profile.js'
import { UserError } from '#dist/train/error.js'
import { writeAtomically } from '#dist/train/io/files.js'
import { measureUnknown, useTuning } from '#dist/train/tuning/run-tuning.js'
import { TuningCache } from '#dist/train/tuning/tuning-cache.js'
import type { Case } from '../cases/case.js'
import { benchCases } from '../cases/index.js'
import { stepModels } from '../cases/steps.js'
import { runBeside } from './beside.js'
import { checkComparable, compare, type OldReport, readReport, seemsSlower } from './compare.js'
import { type LoaderMeasurement, measureLoader, measureWait, type WaitMeasurement } from './loader.js'
import { type Measurement, measure } from './measure.js'
import { isProduct, type Pass, passesOf } from './operator.js'
import { eachOf, type Options, settingOf, wantedBy, writeReport } from './options.js'
import { measureOverhead, type OverheadMeasurement, overheadMethods } from './overhead.js'
import { measurePeaks } from './peaks.js'
import { checkPeers } from './peers.js'
import { cityscapesLike, pascalLike, withPhotographs } from './photographs.js'
import {
  printComparison,
  printLoader,
  printOperator,
  printOperatorHead,
  printOverhead,
  printPeaks,
  printResidual,
  printStep,
  printTuned,
  printWait,
} from './print.js'
import { measureRanks, printRanks } from './ranks.js'
import { measureResidual, type ResidualMeasurement } from './residual.js'
import { measureStep, type StepMeasurement } from './step.js'

const steps: readonly string[] = ['supervised', 'unimatch', 'prevmatch']

interface Plan {
  readonly passes: readonly { row: Case; pass: Pass }[]
  readonly methods: readonly string[]
  readonly residual: boolean
  readonly overhead: readonly string[]
  readonly loader: boolean
}

/** What to measure; throws where the pattern leaves nothing. */
function planOf(crop: number, batch: number, only: string): Plan {
  const wanted = (name: string) => wantedBy(only, name)
  const rows = benchCases({ crop, batch })
  const passes = rows.flatMap((row) => passesOf(row).map((pass) => ({ row, pass })))
  const chosen = passes.filter(({ row, pass }) => wanted(`${row.op}, ${pass} ${row.name}`))
  const methods = steps.filter((method) => wanted(`training step ${method}`))
  const residual = wanted('residual step')
  const overhead = overheadMethods.filter((method) => wanted(`overhead ${method}`))
  const loader = wanted('loader')
  if (chosen.length + methods.length + overhead.length === 0 && !residual && !loader) {
    const names = [...new Set(rows.map(({ op }) => op))].join(', ')
    const others = `'training step', 'residual step', 'overhead' and 'loader'`
    throw new UserError(`--only ${only}: nothing has that in its name; there are ${names}, ${others}`)
  }
  return { passes: chosen, methods, residual, overhead, loader }
}

function checkTarget(option: string, file: string | undefined): void {
  if (file !== undefined && !existsSync(dirname(resolve(file)))) {
    throw new UserError(`${option} ${file}: there is no folder ${dirname(resolve(file))}`)
  }
}

async function run(device: Device, options: Options, old: OldReport | undefined): Promise<void> {
  const { crop, batch } = settingOf(device, options)
  const { only = '', model, amp } = options
  const { passes, methods, residual, overhead, loader } = planOf(crop, batch, only)
  if (options.profile !== undefined && methods.length === 0) {
    throw new UserError(`--profile times training steps, and --only ${only} leaves none`)
  }
  if (amp && !device.traits.half) throw new UserError('--amp: this adapter has no half precision (shader-f16)')
  const circumstances = { adapter: device.adapter, crop, batch, model, amp }
  if (old) checkComparable(old, circumstances)
  console.log(`${device.adapter.device} (${device.adapter.driver}), crop ${crop}, batch ${batch}`)
  const peaks = await measurePeaks(device, amp && passes.some(({ row }) => isProduct(row)))
  printPeaks(peaks)
  const rows: Measurement[] = []
  const measured: StepMeasurement[] = []
  const profiles = new Map<string, Profile>()
  if (passes.length > 0) printOperatorHead()
  const rowName = ({ row, pass }: { row: Case; pass: Pass }) => `${row.op}, ${pass}, ${row.name}`
  let failed = await eachOf(passes, rowName, async ({ row, pass }) => {
    let result = await measure(device, row, pass, peaks, amp)
    // What else the machine does may pass: the better of two measurements counts.
    if (old && seemsSlower(old.report, result)) {
      const again = await measure(device, row, pass, peaks, amp)
      if (again.milliseconds < result.milliseconds) result = again
    }
    rows.push(result)
    printOperator(result)
  })
  if (methods.length > 0) console.log(`\ntraining step, ${model} model${amp ? ', half precision' : ''}`)
  // The small model has the size of the reference trajectories, whatever the operators are measured at.
  const size = model === 'small' ? { crop: 65, batch: 2 } : { crop, batch }
  failed += await eachOf(methods, String, async (method) => {
    const profileSteps = options.profile === undefined ? 0 : options.profileSteps
    const { profile, ...result } = await measureStep(device, stepModels[model], method, size, {
      steps: options.steps,
      profileSteps,
      amp,
    })
    measured.push(result)
    printStep(result)
    if (!profile) return
    profiles.set(`training step ${method}, ${model} model`, profile)
    for (const line of profileTable(profile)) console.log(line)
  })
  const residuals: ResidualMeasurement[] = []
  failed += await eachOf(residual ? ['residual step'] : [], String, async () => {
    const result = await measureResidual(device, peaks)
    residuals.push(result)
    printResidual(result)
  })
  const overheads: OverheadMeasurement[] = []
  failed += await eachOf(overhead, String, async (method) => {
    const result = await measureOverhead(method)
    overheads.push(result)
    printOverhead(result)
  })
  const loaders: LoaderMeasurement[] = []
  const waits: WaitMeasurement[] = []
  const kinds = loader ? [pascalLike, cityscapesLike] : []
  failed += await eachOf(
    kinds,
    ({ name }) => `loader ${name}`,
    (kind) =>
      withPhotographs(
        kind,
        async (samples) => {
          for (const stream of ['labeled', 'unlabeled', 'coefficients'] as const) {
            const result = await measureLoader(samples, stream, kind.crop)
            loaders.push(result)
            printLoader(result)
          }
          if (kind !== pascalLike) return
          const wait = await measureWait(device, stepModels[model], samples, size)
          waits.push(wait)
          printWait(wait)
        },
        options.photographs,
      ),
  )
  const report = { ...circumstances, peaks, operators: rows, steps: measured, residuals, overheads, loaders, waits }
  if (options.json !== undefined) writeReport(options.json, report)
  if (options.profile !== undefined && profiles.size > 0) {
    writeAtomically(options.profile, [Buffer.from(chromeTrace(profiles))])
    console.log(`\nwrote ${options.profile}: open it at https://ui.perfetto.dev or chrome://tracing`)
  }
  const compared = old ? compare(old.report, report) : []
  if (old) printComparison(old.path, compared)
  if (failed > 0) throw new UserError(`${failed} measurements failed`)
  const regressions = compared.filter(({ regressed }) => regressed).length
  if (regressions > 0) throw new UserError(`${regressions} of ${compared.length} measurements are slower than before`)
}

function runRanks(
  ranks: number,
  { crop = 65, batch = 2, steps: count, model, amp, gpu, json, only = 'prevmatch' }: Options,
) {
  const method = steps.find((name) => wantedBy(only, name)) ?? 'prevmatch'
  const result = measureRanks(ranks, { model, method, crop, batch, steps: count, amp, gpu })
  printRanks(result)
  if (json !== undefined) writeReport(json, result)
}

/** Kernels are chosen by what was measured, as training on a GPU does. */
function takeFastest(device: Device, { tune, calls }: Options): void {
  const cache = new TuningCache(device.adapter, console.log)
  const tuning = new Tuning(cache.read())
  if (tune === 'known') useTuning(device, tuning)
  else measureUnknown(device, tuning, cache, calls === undefined ? () => {} : printTuned, { most: calls })
}

function positive(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('give a whole number above 0.')
  return value
}

const command = new Command('bench')
  .description(
    'Times every operator at the shapes of DeepLabV3+ with a ResNet-50, and training steps. GFLOP/s count each ' +
      'product within the map twice (multiply and add); GB/s count every tensor that is needed or returned once. The ' +
      'share is that of the multiply-adds or of the copy bandwidth of the same adapter, measured at the start.',
  )
  .option('--crop <pixels>', 'side of the images (default: 129 on software adapters, 321 on GPUs)', positive)
  .option('--batch <images>', 'images in a batch (default: 4 on software adapters, 8 on GPUs)', positive)
  .option(
    '--only <pattern>',
    'what has this in its name, such as `conv2d`, `training step`, `residual step`, `overhead` or `loader`',
  )
  .option('--json <file>', 'also write the results there')
  .option('--compare <file>', 'a report of --json: fails where something is slower now by more than the noise')
  .option('--amp', 'products and training steps in half precision; all else stays in float32', false)
  .addOption(
    new Option(
      '--tune <calls>',
      'kernels as `node dist/tune.js` measured them, or measured here where they are not known; else the first of each',
    ).choices(['known', 'all']),
  )
  .option('--calls <count>', 'with --tune all: of each program only the calls that take most, and show them', positive)
  .option('--toggles <names>', "toggles of Dawn's that are switched on, with commas between them")
  .option('--peers', 'time tfjs, jax-js and onnxruntime-web beside this (npm run bench:peers installs them)')
  .option(
    '--ranks <count>',
    'training steps on so many processes that mpirun starts, a core each, beside one',
    positive,
  )
  .option('--photographs <folder>', 'the loader: keep the photographs there, for bench/peers/loader.py')
  .option('--gpu <name>', 'part of the name of the adapter to use')
  .option('--profile <file>', 'print the kernels of each training step, and write a trace of them for Perfetto')
  .option('--steps <count>', 'training steps to time', positive, 5)
  .option('--profile-steps <count>', 'steps to time so, in turns with as many ordinary ones', positive, 5)
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
  npm run bench -- --only 'training step prevmatch' --profile trace.json
  npm run bench -- --only loader
  npm run bench -- --ranks 2 --only prevmatch --steps 20
  npm run bench -- --peers --only 'conv2d, forward layer3'
  npm run bench -- --only conv2d --compare before.json`,
  )
  .action((options: Options) =>
    runCommand(async () => {
      checkTarget('--json', options.json)
      checkTarget('--profile', options.profile)
      if (options.peers) checkPeers()
      if (options.ranks !== undefined) {
        runRanks(options.ranks, options)
        return
      }
      const old = options.compare === undefined ? undefined : readReport(options.compare)
      const device = await open({ gpu: options.gpu, toggles: options.toggles?.split(',') })
      if (options.tune) takeFastest(device, options)
      try {
        await (options.peers ? runBeside(device, options) : run(device, options, old))
      } finally {
        device.destroy()
      }
    }),
  )
await command.parseAsync()
