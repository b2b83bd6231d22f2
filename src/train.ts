#!/usr/bin/env node
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createCommand, runCommand, startOf } from './command.js'
import { showAdapter } from './engine/adapter.js'
import { open } from './engine/node.js'
import { listenForInterrupt } from './interrupt.js'
import {
  ampOptions,
  type ConfigOptions,
  configOption,
  gpuOption,
  listOptions,
  memoryOption,
  methodOption,
  overridesOf,
  overwriteOption,
  seedOption,
  setOption,
  wholeNumber,
} from './options.js'
import { batchOfRank, gpuOf, Ranks } from './ranks.js'
import { loadConfig } from './train/config/load.js'
import { describeRank } from './train/distributed/group.js'
import { UserError } from './train/error.js'
import { duration } from './train/logging/log.js'
import { createDisplay, type Display } from './train/logging/terminal.js'
import { dryRun } from './train/run/dry-run.js'
import { exitCodeHelp, exitCodes, OtherRankError, RunError } from './train/run/exit-codes.js'
import { resumeCommand, withCommand } from './train/run/resume-command.js'
import { train } from './train/run/training.js'

interface Options extends ConfigOptions {
  config: string
  savePath?: string
  resume?: string
  init?: string
  maxIters?: number
  skipIterations?: number
  gpu?: string
  globalBatch?: number
  overwrite?: true
  profile?: string
  profileSteps?: number
  tune?: boolean
  traceNan?: true
  dryRun?: true
  printProgram?: string
}

const [amp, noAmp] = ampOptions()
const command = createCommand(
  'train',
  'Trains a network for semantic segmentation with few labeled and many unlabeled images.',
  {
    examples: [
      '--config configs/custom.yaml --labeled-id-path labeled.txt --unlabeled-id-path unlabeled.txt \\\n' +
        '      --val-id-path val.txt --save-path runs/first',
      '--config configs/custom.yaml --resume runs/first/latest.safetensors',
      '--config configs/custom.yaml --resume runs/first/latest.safetensors --profile trace.json',
      '--config my.yaml --init runs/first/best.safetensors --set lr=0.0001 --save-path runs/second',
      '--config configs/camvid.yaml --memory 8GiB --dry-run',
      '--config configs/camvid.yaml --method supervised --set epochs=20 --set lr=0.01 --save-path runs/base',
    ],
    end: exitCodeHelp.trim(),
  },
)
  .addOption(configOption())
  .addOption(setOption())
  .addOption(listOptions.labeled())
  .addOption(listOptions.unlabeled())
  .addOption(listOptions.validation())
  .option('--save-path <folder>', 'where checkpoints and the log go')
  .option('--resume <checkpoint>', 'resume from the latest.safetensors of a run, in its folder')
  .option(
    '--init <checkpoint>',
    'start from all weights of a checkpoint of the same network, such as a best.safetensors',
  )
  .addOption(overwriteOption('the run that the folder holds'))
  .addOption(methodOption())
  .addOption(seedOption())
  .option('--max-iters <count>', 'stop after so many iterations', wholeNumber(1))
  .option(
    '--skip-iterations <count>',
    'with --resume: leave out so many, such as one whose batch gave NaN',
    wholeNumber(1),
  )
  .addOption(gpuOption('; started by mpirun: names or numbers of `doctor`, with commas, for the ranks of a machine'))
  .option(
    '--global-batch <count>',
    'started by mpirun: labeled images in a step of all ranks, in place of batch_size for each',
    wholeNumber(1),
  )
  .addOption(amp)
  .addOption(noAmp)
  .addOption(memoryOption())
  .option(
    '--tune',
    'measure which kernels are fastest on this adapter where that is not known (default: on GPUs only; a run that ' +
      'resumes keeps its kernels)',
  )
  .option('--no-tune', 'neither measure kernels nor use earlier measurements')
  .option(
    '--dry-run',
    'check the data and print what the training will take of the device and whether it fits (exit code 0 or 1); ' +
      'nothing is trained or written',
  )
  .option(
    '--print-program <file>',
    'with --dry-run: write the programs of a step there as text: operators, shapes, layers, dispatches and memory',
  )
  .option(
    '--trace-nan',
    'where a loss, a gradient or a weight becomes NaN or infinite, find the first operator and layer that gave it ' +
      '(takes the memory of weights and momentum buffers once more, and a copy of them at each step)',
  )
  .option(
    '--profile <file>',
    'after 3 steps time some by the clock of the GPU, print where their time goes, by operator, layer and kernel, ' +
      'write a trace there for https://ui.perfetto.dev, and continue training',
  )
  .option(
    '--profile-steps <count>',
    'steps to time kernel by kernel, in turns with as many ordinary ones (10)',
    wholeNumber(1),
  )

const quiet: Display = { live: false, status: () => {}, line: () => {}, close: () => {} }

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const ranks = await Ranks.open()
  await ranks.run(() => main(options, ranks))
})

async function main(options: Options, ranks: Ranks): Promise<void> {
  const { group } = ranks
  const own = startOf('train')
  const start = { command: group.size > 1 ? `mpirun -n ${group.size} ${own}` : own, args: process.argv.slice(2) }
  const { globalBatch } = options
  const overrides = overridesOf(options)
  if (globalBatch !== undefined) overrides.push(`batch_size=${batchOfRank(globalBatch, group)}`)
  const config = loadConfig(options.config, overrides)
  const { resume, maxIters: maxIterations, overwrite = false, tune, profileSteps, traceNan = false } = options
  const { skipIterations } = options
  if (skipIterations && !resume) throw new UserError('--skip-iterations needs --resume')
  if (options.init !== undefined && resume) {
    throw new UserError('--init starts a run, which --resume continues: leave one of them out')
  }
  if (profileSteps && !options.profile) throw new UserError('--profile-steps needs --profile')
  if (options.printProgram !== undefined && !options.dryRun) throw new UserError('--print-program needs --dry-run')
  const profile = options.profile ? { file: options.profile, steps: profileSteps ?? 10 } : undefined
  const display = group.rank === 0 ? createDisplay(process.stdout) : quiet
  const print = (line: string) => display.line(line)
  if (options.dryRun) {
    if (group.rank > 0) return
    const device = await open({ gpu: await gpuOf(options.gpu, group) })
    print(`adapter: ${showAdapter(device.adapter)}`)
    const { printProgram } = options
    if (!(await dryRun(device, { config, init: options.init, tune, traceNan, ranks: group.size, printProgram, print })))
      process.exitCode = exitCodes.userError[0]
    return
  }
  const savePath = options.savePath ?? (resume ? dirname(resume) : undefined)
  if (!savePath) throw new UserError('where should the run be saved? give --save-path')
  const latest = join(savePath, 'latest.safetensors')
  ranks.remedy = () =>
    existsSync(latest) ? `; to resume: ${resumeCommand(start, latest)}` : '; there is no checkpoint yet'
  const device = await open({ gpu: await gpuOf(options.gpu, group) })
  const adapters = await group.gatherValues(showAdapter(device.adapter))
  for (const [rank, adapter] of adapters.entries())
    print(`adapter${group.size > 1 ? ` of ${describeRank(group, rank)}` : ''}: ${adapter}`)
  // A rank whose library of MPI waits for another machine says nothing more, and mpirun knows no command of ours.
  if (new Set(group.hosts).size > 1) print(`to resume, should a machine fail: ${resumeCommand(start, latest)}`)

  const interrupt = listenForInterrupt(print, group.size > 1 ? () => ranks.endWithOthers() : undefined)
  const { signal } = interrupt
  const run = {
    config,
    savePath,
    resume,
    init: options.init,
    maxIterations,
    skipIterations,
    overwrite,
    tune,
    profile,
    traceNan,
    signal,
    display,
    group,
  }
  const result = await train(device, run).catch((error: unknown) => {
    const isOwn = error instanceof RunError && !(error instanceof OtherRankError)
    throw isOwn ? withCommand(error, start, config.lr, traceNan) : error
  })
  device.destroy()
  const toGoOn = resumeCommand(start, latest)
  if (result.unsaved !== undefined) {
    const what = result.interrupted ? 'stopped' : 'done'
    throw new RunError(
      'notSaved',
      `${what} after iteration ${result.iterations}, but ${result.unsaved}; to resume: ${toGoOn}`,
    )
  }
  if (result.interrupted) {
    print(`stopped after iteration ${result.iterations}; to resume: ${toGoOn}`)
    process.exitCode = interrupt.exitCode
    return
  }
  if (!result.scores) {
    const more = maxIterations === undefined ? `; to train longer: ${toGoOn} --set epochs=${2 * config.epochs}` : ''
    print(`all ${result.iterations} iterations are done, best mIoU ${result.bestMiou.toFixed(2)}${more}`)
    return
  }
  print(
    `${result.iterations} iterations in ${duration(result.seconds)}; mIoU ${result.scores.miou.toFixed(2)}, ` +
      `best ${result.bestMiou.toFixed(2)}; checkpoints in ${savePath}`,
  )
}
