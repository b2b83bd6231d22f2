#!/usr/bin/env node
import { existsSync, statSync } from 'node:fs'
import { dirname, extname } from 'node:path'
import { createCommand, runCommand } from './command.js'
import { architectureOf, chooseModel, type ModelSpec } from './models/index.js'
import { differingKeys } from './models/infer.js'
import { onnxOf } from './onnx/export.js'
import { configOption, overwriteOption, setOption, sizeOption } from './options.js'
import { encode, metadataOf } from './train/checkpoint/contents.js'
import { showGeometry } from './train/checkpoint/load-model.js'
import { type Checkpoint, checkpointModel, readCheckpoint, stateOfFile } from './train/checkpoint/read.js'
import { loadConfig } from './train/config/load.js'
import { paletteOf } from './train/data/classes.js'
import { UserError } from './train/error.js'
import { makeFolder, writeAtomically } from './train/io/files.js'
import { writeSafetensors } from './train/io/safetensors.js'
import { momentumPrefix } from './train/trainer/saved-store.js'

interface Options {
  config?: string
  set?: string[]
  size?: [number, number]
  weightsOnly?: true
  overwrite?: true
}

const command = createCommand(
  'convert',
  'Converts weights: PyTorch (.pth, .pt) or safetensors in, safetensors or ONNX out.',
  {
    notes: `ONNX: input \`image\`, float32 [batch, 3, height, width], RGB, (value / 255 - mean) / std with mean 0.485, 0.456, 0.406
and std 0.229, 0.224, 0.225; output \`logits\`, float32 [batch, classes, height, width]; opset 17.`,
    examples: [
      'prevmatch_pascal.pth prevmatch_pascal.safetensors',
      'runs/first/best.safetensors model.onnx',
      'cityscapes.pth cityscapes.onnx --config configs/cityscapes.yaml --size 1024x2048',
    ],
  },
)
  .argument('<in>', 'a state_dict or a checkpoint; its content tells the format')
  .argument('<out>', 'file that ends in .safetensors or .onnx')
  .addOption(
    configOption('configuration of the training: tells dilations, class names and colours, which no .pth says'),
  )
  .addOption(setOption())
  .addOption(sizeOption('ONNX for one image of this size; by default any number of images of any size'))
  .option('--weights-only', 'leave out the momentum buffers')
  .addOption(overwriteOption('the file that there is'))

interface Description {
  readonly model: ModelSpec
  /** JSON by key. */
  readonly metadata: Readonly<Record<string, string>>
}

/** The model and classes of the configuration that was given, where it fits; else the model that the file tells. */
function describe(checkpoint: Checkpoint, path: string, { config: file, set }: Options): Description {
  const { architecture, config, geometry, hasGeometry } = checkpointModel(checkpoint, path)
  if (file) {
    const settings = loadConfig(file, set)
    const given = chooseModel(settings)
    const mismatch = architectureOf(architecture).explainMismatch?.(checkpoint.tensors, given.config)
    if (mismatch !== undefined)
      throw new UserError(`${path}: ${mismatch}: choose the configuration with which it was trained`)
    const { widths } = architectureOf(architecture).inferConfig(checkpoint.tensors)
    const [key] = differingKeys(given.config, { ...widths, ...(hasGeometry ? geometry : {}) })
    if (key) {
      throw new UserError(
        `${path} was trained with ${key} ${JSON.stringify(config[key])}, but ${file} asks for ` +
          `${JSON.stringify(given.config[key])}: choose the configuration with which it was trained`,
      )
    }
    const said = { ...metadataOf(given), class_names: settings.class_names, palette: paletteOf(settings) }
    return { model: given, metadata: encode(said) }
  }
  if (!hasGeometry) {
    console.log(`${path} does not say its ${showGeometry({ geometry })}; give --config where that is wrong`)
  }
  const model = { architecture, config }
  return { model, metadata: encode(metadataOf(model)) }
}

function toSafetensors(checkpoint: Checkpoint, input: string, output: string, options: Options): void {
  const { tensors, momentumBuffers, metadata } = checkpoint
  const kept = options.weightsOnly ? [] : [...momentumBuffers]
  const named = kept.map(([name, tensor]) => [momentumPrefix + name, tensor] as const)
  // Without a configuration any tensors will do, such as those of a backbone.
  const description = options.config ? describe(checkpoint, input, options).metadata : {}
  makeFolder(dirname(output))
  writeSafetensors(output, [...tensors, ...named], { ...metadata, ...description })
}

/** Metadata of a checkpoint that say something to the users of an ONNX file. */
const useful = ['class_names', 'palette', 'epoch', 'miou']

function toOnnx(checkpoint: Checkpoint, input: string, output: string, options: Options): void {
  const { model: spec, metadata: description } = describe(checkpoint, input, options)
  const kept = Object.entries(checkpoint.metadata).filter(([key]) => useful.includes(key))
  const metadata = { ...Object.fromEntries(kept), ...description }
  const { nameInFile } = checkpoint.names
  const parts = onnxOf(spec, stateOfFile(checkpoint.tensors), input, { size: options.size, metadata, nameInFile })
  const bytes = parts.reduce((sum, { length }) => sum + length, 0)
  if (bytes >= 2 ** 31) throw new UserError(`${output} would have ${bytes} bytes: an ONNX file ends at 2 GiB`)
  makeFolder(dirname(output))
  writeAtomically(output, parts)
}

const writers = { '.safetensors': toSafetensors, '.onnx': toOnnx }

await runCommand(async () => {
  const options = command.parse().opts<Options>()
  const [input = '', output = ''] = command.args
  const extension = extname(output).toLowerCase()
  if (extension !== '.safetensors' && extension !== '.onnx') {
    throw new UserError(
      `cannot write ${output}: choose a name that ends in .safetensors (safetensors.torch.load_file reads it in Python) or .onnx`,
    )
  }
  if (options.size && extension !== '.onnx') throw new UserError('--size concerns ONNX only: leave it out')
  if (options.set && !options.config) throw new UserError('--set changes a configuration: give --config')
  if (existsSync(output) && !options.overwrite) {
    throw new UserError(`${output} is there already: choose another name, or replace it with --overwrite`)
  }
  const checkpoint = readCheckpoint(input)
  if (checkpoint.note) console.log(checkpoint.note)
  writers[extension](checkpoint, input, output, options)
  const { size } = statSync(output)
  const parts = [`${checkpoint.tensors.size} tensors`]
  if (extension === '.safetensors' && !options.weightsOnly && checkpoint.momentumBuffers.size > 0) {
    parts.push(`${checkpoint.momentumBuffers.size} momentum buffers`)
  }
  console.log(`${output}: ${parts.join(', ')}, ${(size / 1e6).toFixed(2)} MB`)
})
