#!/usr/bin/env node
import { dirname, join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { runCommand } from './command.js'
import { open } from './engine/node.js'
import { loadConfig } from './train/config/load.js'
import { UserError } from './train/error.js'
import { duration } from './train/logging/log.js'
import { createDisplay } from './train/logging/terminal.js'
import { forecast } from './train/run/dry-run.js'
import { exitCodeHelp, exitCodes, RunError } from './train/run/exit-codes.js'
import { resumeCommand, withCommand } from './train/run/resume-command.js'
import { train } from './train/run/training.js'

interface Options {
  config: string
  labeledIdPath?: string
  unlabeledIdPath?: string
  valIdPath?: string
  savePath?: string
  resume?: string
  method?: string
  seed?: string
  set: string[]
  maxIters?: number
  gpu?: string
  overwrite?: true
  profile?: string
  profileSteps?: number
  tune?: boolean
  amp?: boolean
  traceNan?: true
  dryRun?: true
}

function positive(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expects an integer of at least 1.')
  return value
}

const command = new Command('train')
  .description('Trains DeepLabV3+ for semantic segmentation with few labeled and many unlabeled images.')
  .requiredOption('--config <file>', 'YAML configuration, see configs/')
  .option('--labeled-id-path <list>', 'list of lines `image label`, relative to data_root')
  .option('--unlabeled-id-path <list>', 'list of images, one per line; labels in it are not read')
  .option('--val-id-path <list>', 'list of lines `image label` for the evaluation after each epoch')
  .option('--save-path <folder>', 'where checkpoints and the log go')
  .option('--resume <checkpoint>', 'go on from the latest.safetensors of a run, in its folder')
  .option('--method <name>', 'supervised, unimatch or prevmatch')
  .option(
    '--set <key=value>',
    'changes a key of the configuration; may be repeated',
    (v, all: string[]) => [...all, v],
    [],
  )
  .option('--seed <number>', 'seed of everything random')
  .option('--max-iters <count>', 'stop after so many iterations', positive)
  .option('--gpu <name>', "part of the adapter's name, such as nvidia or llvmpipe")
  .option('--amp', 'compute in half precision where the adapter can: the same as --set amp=true')
  .option('--no-amp', 'compute in float32: the same as --set amp=false')
  .option(
    '--tune',
    'measure which kernels are fastest on this adapter where that is not known (default: on GPUs only; a run that ' +
      'goes on keeps its kernels)',
  )
  .option('--no-tune', 'neither measure kernels nor use earlier measurements')
  .option(
    '--dry-run',
    'check the data and print what the training will take of the device and whether it fits (exit code 0 or 1); ' +
      'nothing is trained or written',
  )
  .option(
    '--trace-nan',
    'where a loss, a gradient or a weight becomes NaN or infinite, find the first operator and layer that gave it ' +
      '(takes the memory of weights and momenta once more, and a copy of them at each step)',
  )
  .option('--overwrite', 'replace the run that the folder holds')
  .option(
    '--profile <file>',
    'after 3 steps time some by the clock of the GPU, print where their time goes, by operator, layer and kernel, ' +
      'write a trace there for https://ui.perfetto.dev, and go on training',
  )
  .option(
    '--profile-steps <count>',
    'steps to time kernel by kernel, in turns with as many ordinary ones (10)',
    positive,
  )
  .addHelpText(
    'after',
    `
Examples:
  node dist/train.js --config configs/custom.yaml --labeled-id-path labeled.txt --unlabeled-id-path unlabeled.txt \\
      --val-id-path val.txt --save-path runs/first
  node dist/train.js --config configs/custom.yaml --resume runs/first/latest.safetensors
  node dist/train.js --config configs/custom.yaml --resume runs/first/latest.safetensors --profile trace.json
  node dist/train.js --config configs/camvid.yaml --method supervised --set epochs=20 --set lr=0.01 --save-path runs/base
${exitCodeHelp}`,
  )

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const args = process.argv.slice(2)
  const given = {
    labeled_id_path: options.labeledIdPath,
    unlabeled_id_path: options.unlabeledIdPath,
    val_id_path: options.valIdPath,
    method: options.method,
    seed: options.seed,
    amp: options.amp,
  }
  const overrides = Object.entries(given).flatMap(([key, value]) =>
    // Quoted, so that a path is not read as YAML; a number stays one.
    value === undefined ? [] : [`${key}=${key === 'seed' ? value : JSON.stringify(value)}`],
  )
  const config = loadConfig(options.config, [...options.set, ...overrides])
  const { resume, maxIters: maxIterations, overwrite = false, tune, profileSteps, traceNan = false } = options
  if (profileSteps && !options.profile) throw new UserError('--profile-steps needs --profile')
  const profile = options.profile ? { file: options.profile, steps: profileSteps ?? 10 } : undefined
  const display = createDisplay(process.stdout)
  const print = (line: string) => display.line(line)
  if (options.dryRun) {
    const device = await open({ gpu: options.gpu })
    print(`adapter: ${device.adapter.device} (${device.adapter.driver})`)
    if (!(await forecast(device, { config, tune, traceNan, print }))) process.exitCode = exitCodes.userError[0]
    return
  }
  const savePath = options.savePath ?? (resume ? dirname(resume) : undefined)
  if (!savePath) throw new UserError('where should the run be saved? give --save-path')
  const device = await open({ gpu: options.gpu })
  print(`adapter: ${device.adapter.device} (${device.adapter.driver})`)

  const interrupt = new AbortController()
  let ending: 'interrupted' | 'terminated' = 'interrupted'
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      ending = name === 'SIGINT' ? 'interrupted' : 'terminated'
      if (interrupt.signal.aborted) process.exit(exitCodes[ending][0])
      print(`${name}: finishing the step and writing a checkpoint; once more to stop at once`)
      interrupt.abort()
    })
  }
  const { signal } = interrupt
  const run = { config, savePath, resume, maxIterations, overwrite, tune, profile, traceNan, signal, display }
  const result = await train(device, run).catch((error: unknown) => {
    throw error instanceof RunError ? withCommand(error, args, traceNan) : error
  })
  device.destroy()
  const toGoOn = resumeCommand(args, join(savePath, 'latest.safetensors'))
  if (result.unsaved !== undefined) {
    const what = result.interrupted ? 'stopped' : 'done'
    throw new RunError(
      'notSaved',
      `${what} after iteration ${result.iterations}, but ${result.unsaved}; to go on: ${toGoOn}`,
    )
  }
  if (result.interrupted) {
    print(`stopped after iteration ${result.iterations}; to go on: ${toGoOn}`)
    process.exitCode = exitCodes[ending][0]
    return
  }
  print(
    `${result.iterations} iterations in ${duration(result.seconds)}; mIoU ${result.scores?.miou.toFixed(2)}, ` +
      `best ${result.bestMiou.toFixed(2)}; checkpoints in ${savePath}`,
  )
})
