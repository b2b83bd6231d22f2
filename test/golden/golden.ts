// node build/test/golden/golden.js DIR [--out RESULTS] [--amp]
//
// Checks the engine, the training step and the evaluation against recorded values of PyTorch: operators (ops.json),
// augmentation (augment.json), evaluation (eval.json), passes of a model with their gradients (forward.json), names and
// shapes of a model (names.json) and every training trajectory beneath DIR, which is a folder with
// config.json, init.safetensors and iter_*.safetensors. Exits with 1 where any error exceeds the files' tolerance, or
// anything cannot be checked. With --amp: the losses of the trajectories alone, in half precision, to 1 %.
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { Command } from 'commander'
import type { Device } from '#dist/engine/device.js'
import { open } from '#dist/engine/node.js'
import { type ProcessGroup, singleProcess } from '#dist/train/distributed/group.js'
import { launchOf } from '#dist/train/distributed/launcher.js'
import { MpiGroup } from '#dist/train/distributed/mpi-group.js'
import { UserError } from '#dist/train/error.js'
import { checkAugment } from './augment.js'
import { checkDualTeacherViews } from './dual-teacher.js'
import { checkEvaluation } from './evaluation.js'
import { checkForward } from './forward.js'
import { checkNames } from './names.js'
import { checkOps } from './ops.js'
import { checkEqualStates, checkSampler, checkSynchronized, ranksOf } from './ranks.js'
import type { RecordedRun } from './recordings/recording.js'
import { type CaseResult, passes, printCase, strain, worst } from './report.js'
import { checkFinal, finalTensors, type RunOptions, runsOf, runTrajectory, writeResults } from './trajectory.js'

type RankInFolder = NonNullable<RunOptions['ranks']>

interface RecordedFile {
  readonly title: string
  check(device: Device, folder: string): Promise<readonly CaseResult[]>
}

const checkViews = async (device: Device, folder: string): Promise<readonly CaseResult[]> =>
  (await checkDualTeacherViews(device, folder)) ?? checkAugment(device, folder)

/** Files that are checked besides the trajectories. */
const recordedFiles: Readonly<Record<string, RecordedFile>> = {
  'ops.json': { title: 'operators', check: checkOps },
  'augment.json': { title: 'augmentation', check: checkViews },
  'eval.json': { title: 'evaluation', check: checkEvaluation },
  'names.json': { title: 'names and shapes', check: async (device, folder) => checkNames(device, folder) },
  'forward.json': { title: 'passes of a model', check: checkForward },
  'syncbn.json': { title: 'batch norm over ranks', check: checkSynchronized },
  'sampler.json': { title: 'samplers', check: async (_, folder) => checkSampler(folder) },
}
const fileNames = Object.keys(recordedFiles).join(', ')

/** Final values beyond their tolerance that are printed, the worst first. */
const maxFailuresShown = 10

interface Tally {
  passed: number
  failed: number
  /** Recorded values that cannot be right. */
  skipped: number
}

function count(tally: Tally, results: readonly CaseResult[]): void {
  for (const result of results) {
    if (result.skipped !== undefined) tally.skipped++
    else passes(result) ? tally.passed++ : tally.failed++
  }
}

/** Folders beneath `folder`, itself included, that hold a trajectory. */
function trajectories(folder: string): string[] {
  const names = readdirSync(folder).sort()
  if (names.includes('config.json') && names.includes('init.safetensors')) return [folder]
  return names
    .map((name) => join(folder, name))
    .flatMap((path) => (statSync(path).isDirectory() ? trajectories(path) : []))
}

/** The recorded files in `folder` and beneath it. */
function filesBeneath(folder: string): { readonly path: string; readonly file: string }[] {
  const names = readdirSync(folder).sort()
  const own = Object.keys(recordedFiles).filter((file) => names.includes(file))
  const below = names.map((name) => join(folder, name)).filter((path) => statSync(path).isDirectory())
  return [...own.map((file) => ({ path: folder, file })), ...below.flatMap(filesBeneath)]
}

/** The folder's name where no other trajectory has it, else its path with dashes. */
function nameOf(folder: string, root: string, all: readonly string[]): string {
  const own = basename(folder)
  const unique = all.filter((other) => basename(other) === own).length === 1
  return unique ? own : relative(root, folder).split(/[\\/]/).join('-')
}

async function checkTrajectory(
  device: Device,
  folder: string,
  recorded: RecordedRun,
  name: string,
  tally: Tally,
  { out, verbose, amp = false }: Options,
  ranks?: RankInFolder,
): Promise<void> {
  const started = performance.now()
  const run = await runTrajectory(device, folder, {
    run: recorded,
    amp,
    ranks,
    onStep: (iteration, steps, results) => {
      count(tally, results)
      const shown = verbose ? results : results.filter((result) => !passes(result))
      const closest = worst(results)
      const label = `${name} iteration ${iteration} of ${steps}`
      if (closest && !shown.includes(closest))
        printCase({ ...closest, name: `${label}: ${closest.name} is the closest` })
      for (const result of shown) printCase({ ...result, name: `${label}: ${result.name}` })
      if (!closest) console.log(`      ${label}: nothing to compare with`)
    },
  })
  const seconds = (performance.now() - started) / 1000
  const sorted = [...run.times].sort((a, b) => a - b)
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0
  const { loss_scale: scale, skipped_steps: skipped } = run.rows.at(-1) ?? {}
  if (amp) console.log(`      loss scale ${scale}, ${skipped} steps skipped`)
  console.log(`      ${run.times.length} steps in ${seconds.toFixed(1)} s, ${median.toFixed(0)} ms each (median)`)

  const tensors = await finalTensors(run)
  const states = ranks ? [await checkEqualStates(tensors, ranks.exchange)] : []
  const final = [...(amp ? [] : checkFinal(folder, run, tensors)), ...states]
  count(tally, final)
  const closest = worst(final)
  const shown = verbose ? final : final.filter((result) => !passes(result))
  if (closest && !shown.includes(closest)) {
    printCase({ ...closest, name: `${name} final values: ${closest.name} is the closest of ${final.length} tensors` })
  }
  const printed = verbose ? shown : [...shown].sort((a, b) => strain(b) - strain(a)).slice(0, maxFailuresShown)
  for (const result of printed) printCase({ ...result, name: `${name} final values: ${result.name}` })
  if (printed.length < shown.length) console.log(`      and ${shown.length - printed.length} more`)
  if (out !== undefined) {
    await writeResults(out, name, run.rows, tensors)
    console.log(`      wrote ${join(out, `${name}.json`)} and ${name}.safetensors`)
  }
  run.trainer.destroy()
  run.model.store.destroy()
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))

interface Options {
  readonly out?: string
  readonly gpu?: string
  readonly verbose?: boolean
  readonly amp?: boolean
}

/** Checks everything in a folder; returns how many comparisons passed and failed. */
async function checkAll(folder: string, options: Options, group: ProcessGroup): Promise<Tally> {
  if (!existsSync(folder)) throw new UserError(`there is no folder ${folder}: give one with reference values`)
  const found = trajectories(folder)
  const files = options.amp || group.rank > 0 ? [] : filesBeneath(folder)
  if (found.length + files.length === 0) {
    const lacking = options.amp ? 'no trajectory' : `no ${fileNames} or trajectory`
    throw new UserError(`${folder} holds ${lacking}: nothing to check`)
  }
  if (options.out !== undefined) mkdirSync(options.out, { recursive: true })
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 }
  const device = await open({ gpu: options.gpu })
  console.log(`on ${device.adapter.device} (${device.adapter.driver})`)
  if (options.amp && !device.traits.half) throw new UserError('--amp: this adapter has no half precision (shader-f16)')
  try {
    const attempt = async (title: string, check: () => Promise<readonly CaseResult[]>): Promise<void> => {
      console.log(`\n${title}`)
      try {
        const results = await check()
        for (const result of results) printCase(result)
        count(tally, results)
      } catch (error) {
        // The other parts are still worth checking.
        console.log(`FAIL  ${title}: ${error instanceof UserError ? error.message : describe(error)}`)
        tally.failed++
      }
    }
    for (const { path, file } of files) {
      const { title, check } = recordedFiles[file] as RecordedFile
      const inFolder = relative(folder, path)
      await attempt(inFolder === '' ? title : `${inFolder}: ${title}`, () => check(device, path))
    }
    for (const path of found) {
      const own = nameOf(path, folder, found)
      await attempt(own, async () => {
        for (const run of runsOf(path)) {
          const name = run.label ? `${own} ${run.label}` : own
          const ranks = ranksOf(path, group)
          const ofRank = (rank?: RankInFolder) => {
            const ownName = rank ? `${name} rank ${rank.rank}` : name
            return checkTrajectory(device, path, run, ownName, tally, options, rank)
          }
          await Promise.all(ranks ? ranks.map(ofRank) : group.rank === 0 ? [ofRank()] : [])
        }
        return []
      })
    }
  } finally {
    device.destroy()
  }
  return tally
}

const command = new Command('golden')
  .description('check against recorded values of PyTorch')
  .argument('<dir>', `folder with ${fileNames} or trajectories, in it or beneath it`)
  .option('--out <folder>', 'write losses and last weights of every trajectory there')
  .option('--gpu <name>', 'part of the name of the adapter to use')
  .option('--amp', 'run the trajectories in half precision, and allow their losses 1 %')
  .option('--verbose', 'print every comparison, not only the closest one of each step')
  .action(async (dir: string, options: Options) => {
    try {
      const launch = launchOf()
      const group = launch ? await MpiGroup.open(launch) : singleProcess()
      const tallies = await group.gatherValues(await checkAll(resolve(dir), options, group))
      const sum = (key: keyof Tally) => tallies.reduce((total, tally) => total + tally[key], 0)
      const skipped = sum('skipped') > 0 ? `, ${sum('skipped')} skipped` : ''
      if (group.rank === 0) console.log(`\n${sum('passed')} passed, ${sum('failed')} failed${skipped}`)
      process.exitCode = sum('failed') > 0 ? 1 : 0
      await group.close()
    } catch (error) {
      const known = error instanceof UserError
      console.error(known ? `golden: ${error.message}` : error)
      process.exitCode = 1
    }
  })
await command.parseAsync()
