import { dirname, join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { read, tracedGraph } from '#dist/engine/graph.js'
import { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { normalizeImage } from '#dist/kernels/images.js'
import { crossEntropyMean } from '#dist/kernels/loss.js'
import { createModel } from '#dist/models/index.js'
import { parametersOf, upsample } from '#dist/models/segmentation.js'
import { stateDict, toTorchLayout } from '#dist/models/weights.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { toFloat32 } from '#dist/train/io/safetensors.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { modelOf, type RecordedModel } from './model-choice.js'
import { type CaseResult, largestDifference } from './report.js'

/** `forward.json`: passes over two images, in evaluation and in training, with different output strides. */
interface GoldenForward {
  /** Path of the weights of all passes. */
  readonly weights: string
  readonly model: RecordedModel['model']
  /** Tolerances by the names of the tensors in `forward.safetensors`. */
  readonly tensors: Readonly<Record<string, { readonly atol: number }>>
}

/** A pass, and the names of what was recorded of it. */
interface Pass {
  /** What its tensors' names begin with, such as `os16_train/`. */
  readonly prefix: string
  readonly outputStride: number
  readonly training: boolean
  readonly names: readonly string[]
}

function passesOf(path: string, { tensors }: GoldenForward): Pass[] {
  const prefixes = [...new Set(Object.keys(tensors).map((name) => name.slice(0, name.indexOf('/') + 1)))]
  return prefixes.map((prefix) => {
    const [, stride, mode] = /^os(\d+)_(eval|train)\/$/.exec(prefix) ?? []
    if (stride === undefined) throw new UserError(`${path}: '${prefix}' names no output stride and mode`)
    const names = Object.keys(tensors).flatMap((name) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []))
    return { prefix, outputStride: Number(stride), training: mode === 'train', names }
  })
}

/** What a part of the traced model results in: the last value that its scope has so far. */
function resultOf(scope: string): Tensor {
  const within = ({ scope: at }: { scope: string }) => at === scope || at.startsWith(`${scope}.`)
  const node = tracedGraph(`resultOf('${scope}')`).nodes.findLast((each) => each.op !== undefined && within(each))
  const output = node?.outputs[0]
  if (!node || !output) throw new UserError(`the model has no part '${scope}'`)
  return new Tensor(node, 0, output.shape, output.dtype)
}

/** Compares a pass with what was recorded of it: logits, loss, features, results of parts, gradients, statistics. */
async function checkPass(
  device: Device,
  folder: string,
  golden: GoldenForward,
  file: TensorFile,
  { prefix, outputStride, training, names }: Pass,
): Promise<CaseResult[]> {
  const store = new Store(device, 'model')
  const choice = { model: { ...golden.model, output_stride: outputStride } }
  const model = createModel(store, modelOf(choice, join(folder, 'forward.json')))
  const weights = join(folder, golden.weights)
  loadWeights(model, new TensorFile(weights).tensors, weights)

  const { shape } = file.get('image')
  const [n = 0, channels = 0, height = 0, width = 0] = shape
  const parameters = parametersOf(model)
  const inputs = { image: spec([n, height, width, channels], 'u8'), target: spec([n, height, width], 'u8') }
  const values = new Map<string, ArrayLike<number>>()
  const program = await compile(device, inputs, ({ image, target }) => {
    const features = model.features(normalizeImage(image), { training })
    const maps: [string, Tensor][] = [
      ...model.dropoutLevels.flatMap(({ name, levels: [level = 0] }): [string, Tensor][] => {
        const map = features[level]
        return map ? [[name, map]] : []
      }),
      ...names.flatMap((name): [string, Tensor][] =>
        name.startsWith('tap/') ? [[name, resultOf(`backbone.${name.slice('tap/'.length)}`)]] : [],
      ),
    ]
    const logits = upsample(model.decode(features, { training }), [height, width])
    const loss = crossEntropyMean(logits, target)
    const gradients = names.some((name) => name.startsWith('grad/')) ? grad(loss, parameters.map(read)) : []
    return Object.fromEntries([
      ...maps,
      ['logits', logits],
      ['loss', loss],
      ...gradients.map((gradient, i) => [`grad/${parameters[i]?.name}`, gradient] as const),
    ])
  })
  program.run({ image: channelsLast(file.bytes('image'), shape), target: file.bytes('target') })
  for (const name of names) {
    if (name.startsWith('after/')) continue
    const variable = parameters.find((each) => name === `grad/${each.name}`)
    const value = (await program.read(name)) as Float32Array
    values.set(name, variable ? toTorchLayout(variable.spec.shape, value) : value)
  }
  for (const [name, tensor] of await stateDict(model)) values.set(`after/${name}`, toFloat32(tensor))
  program.destroy()
  store.destroy()
  return names.map((name) => {
    const recorded = file.get(prefix + name)
    const isMap = recorded.shape.length === 4 && !name.startsWith('grad/')
    const expected = isMap ? channelsLast(toFloat32(recorded), recorded.shape) : toFloat32(recorded)
    const error = largestDifference(values.get(name) ?? [], expected)
    return { name: prefix + name, error, tolerance: golden.tensors[prefix + name]?.atol ?? 0 }
  })
}

/** Checks `forward.json` and `forward.safetensors` of a folder. */
export async function checkForward(device: Device, folder: string): Promise<CaseResult[]> {
  const path = join(folder, 'forward.json')
  const golden = readJson<GoldenForward>(path)
  const file = new TensorFile(join(dirname(path), 'forward.safetensors'))
  const results: CaseResult[] = []
  for (const pass of passesOf(path, golden)) results.push(...(await checkPass(device, folder, golden, file, pass)))
  return results
}
