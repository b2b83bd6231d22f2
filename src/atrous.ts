#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { errorOutput } from './error-output.js'

/** Each is a module beside this one, which runs when it is imported. */
const commands = {
  train: 'train with few labeled and many unlabeled images',
  compare: 'train several methods and show their scores side by side',
  evaluate: 'score a checkpoint on labeled images',
  predict: 'segment images: masks, coloured masks, overlays',
  convert: 'convert weights: PyTorch or safetensors to safetensors or ONNX',
  split: 'make lists of images for training and validation',
  'check-data': 'read every image and label once and report what is wrong',
  tune: 'measure ahead which kernels are fastest on a GPU',
  doctor: 'show what WebGPU offers on this machine, and test it',
  demo: 'train on painted scenes and show what unlabeled images add',
} as const

const { version, description } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  readonly version: string
  readonly description: string
}

const program = new Command('atrous')
  .description(`${description}.`)
  .version(version)
  .enablePositionalOptions()
  .configureOutput(errorOutput)
  .addHelpText('after', '\natrous <command> --help shows the options of a command, with examples.')

/** Runs a command with the arguments that follow its name. */
async function run(name: string, ...more: readonly string[]): Promise<void> {
  process.argv.splice(2, 1 + more.length, ...more)
  try {
    await import(`./${name}.js`)
  } catch (error) {
    const [, missing] = /Cannot find package '(sharp|webgpu)'/.exec(String(error)) ?? []
    if (missing === undefined) throw error
    process.stderr.write(`error: the package ${missing} is missing: npm install webgpu sharp\n`)
    process.exit(1)
  }
}

for (const [name, summary] of Object.entries(commands)) {
  // The module reads the arguments, --help too.
  const command = program.command(name).description(summary).helpOption(false).usage('[options]')
  command.allowUnknownOption().allowExcessArguments().passThroughOptions()
  command.action(() => run(name))
}
program
  .command('help', { hidden: true })
  .argument('[command]')
  .action((name?: string) =>
    name !== undefined && Object.hasOwn(commands, name) ? run(name, '--help') : program.help(),
  )

await program.parseAsync()
