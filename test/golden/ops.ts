import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { type Data, type Spec, spec } from '#dist/engine/shape.js'
import { batchNormEvaluation, batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { cutmix } from '#dist/kernels/images.js'
import { confidenceWeightedLoss, crossEntropy, crossEntropyMean, ohemCrossEntropy } from '#dist/kernels/loss.js'
import { matmul } from '#dist/kernels/matmul.js'
import { concat } from '#dist/kernels/movement.js'
import { add, fill, mul, relu } from '#dist/kernels/pointwise.js'
import { globalAveragePool, maxPool2d } from '#dist/kernels/pool.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { softmax, softmaxMax } from '#dist/kernels/softmax.js'
import { sgd } from '#dist/kernels/update.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, toFloat32 } from '#dist/train/io/safetensors.js'
import { cotangentData, cotangentSpecs, withGradients } from '../support/check.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { type CaseResult, largestDifference } from './report.js'

/** A case of ops.json. */
interface GoldenCase {
  readonly id: string
  readonly op: string
  readonly params: Readonly<Record<string, unknown>>
  readonly in: readonly string[]
  readonly out: readonly string[]
  readonly gin: readonly string[]
  readonly gout: readonly string[]
  readonly atol: Readonly<Record<string, number>>
}

/** Parameters of a case, whose absence is an error that names case and parameter. */
class Params {
  constructor(private readonly row: GoldenCase) {}

  number(name: string, otherwise?: number): number {
    const value = this.row.params[name] ?? otherwise
    if (typeof value !== 'number') throw this.wrong(name, 'a number')
    return value
  }

  text(name: string): string {
    const value = this.row.params[name]
    if (typeof value !== 'string') throw this.wrong(name, 'a text')
    return value
  }

  flag(name: string): boolean {
    return this.row.params[name] === true
  }

  numbers(name: string): number[] {
    const value = this.row.params[name]
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'number')) throw this.wrong(name, 'numbers')
    return value
  }

  texts(name: string): string[] {
    const value = this.row.params[name]
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) throw this.wrong(name, 'names')
    return value
  }

  lists<T>(name: string): T[][] {
    const value = this.row.params[name]
    if (!Array.isArray(value) || !value.every(Array.isArray)) throw this.wrong(name, 'lists')
    return value
  }

  wrong(name: string, what: string): UserError {
    return new UserError(`ops.json: case ${this.row.id} needs ${what} as params.${name}`)
  }
}

/** A tensor as the engine holds it: maps NHWC, weights [KH, KW, I, O], halves as floats. */
interface EngineTensor {
  readonly spec: Spec
  readonly data: Float32Array | Uint8Array
}

/** OIHW → [KH, KW, I, O] */
function kernelLast(data: Float32Array, [o = 1, i = 1, kh = 1, kw = 1]: readonly number[]): Float32Array {
  const result = new Float32Array(data.length)
  for (let k = 0; k < o; k++) {
    for (let c = 0; c < i; c++) {
      for (let t = 0; t < kh * kw; t++) result[(t * i + c) * o + k] = data[(k * i + c) * kh * kw + t] ?? 0
    }
  }
  return result
}

function toEngine(tensor: FileTensor, isWeight: boolean): EngineTensor {
  const { shape } = tensor
  const data = tensor.data instanceof Uint8Array ? tensor.data : toFloat32(tensor)
  const dtype = data instanceof Uint8Array ? 'u8' : 'f32'
  const [n = 1, c = 1, h = 1, w = 1] = shape
  if (shape.length !== 4) return { spec: spec(shape, dtype), data }
  if (isWeight && data instanceof Float32Array) return { spec: spec([h, w, c, n]), data: kernelLast(data, shape) }
  return { spec: spec([n, h, w, c], dtype), data: channelsLast(data, shape) }
}

type Tensors = (name: string) => Tensor

/** How each operator of the file is computed; the names of inputs and outputs are the file's. */
const rules: Readonly<Record<string, (t: Tensors, p: Params) => Record<string, Tensor>>> = {
  conv2d: (t, p) => {
    const y = conv2d(t('x'), t('w'), {
      stride: p.number('stride', 1),
      padding: p.number('padding', 0),
      dilation: p.number('dilation', 1),
      groups: p.number('groups', 1),
    })
    return { y: p.flag('bias') ? add(y, t('b')) : y }
  },
  batchnorm: (t, p) => {
    const tensors = {
      weight: t('weight'),
      bias: t('bias'),
      runningMean: t('running_mean'),
      runningVar: t('running_var'),
    }
    const eps = p.number('eps')
    if (!p.flag('training')) return { y: batchNormEvaluation(t('x'), tensors, { eps }) }
    const result = batchNormTraining(t('x'), tensors, { momentum: p.number('momentum'), eps })
    return { y: result.y, running_mean: result.runningMean, running_var: result.runningVar }
  },
  relu: (t) => ({ y: relu(t('x')) }),
  add_relu: (t) => ({ y: relu(add(t('a'), t('b'))) }),
  maxpool2d: (t, p) => {
    const options = { kernel: p.number('kernel'), stride: p.number('stride'), padding: p.number('padding') }
    return { y: maxPool2d(t('x'), options) }
  },
  global_avg_pool: (t) => ({ y: globalAveragePool(t('x')) }),
  bilinear_align_corners: (t, p) => {
    const [height, width] = p.numbers('out')
    if (height === undefined || width === undefined) throw p.wrong('out', 'height and width')
    return { y: resizeBilinear(t('x'), [height, width]) }
  },
  concat_channels: (t, p) => ({ y: concat(p.texts('order').map(t), 3) }),
  channel_dropout: (t) => {
    const [n = 1, c = 1] = t('mult').shape
    return { y: mul(t('x'), t('mult').reshape(n, 1, 1, c)) }
  },
  softmax_max: (t) => {
    const { confidence, label } = softmaxMax(t('x'))
    return { prob: softmax(t('x')), conf: confidence, argmax: label }
  },
  cross_entropy: (t, p) => {
    const options = { ignoreIndex: p.number('ignore_index', 255) }
    const mean = p.text('reduction') === 'mean'
    return { loss: (mean ? crossEntropyMean : crossEntropy)(t('x'), t('target'), options) }
  },
  ohem: (t, p) => ({
    ...ohemCrossEntropy(t('x'), t('target'), {
      threshold: p.number('thresh'),
      minKept: p.number('min_kept'),
      ignoreIndex: p.number('ignore_index', 255),
    }),
  }),
  confidence_weighted_loss: (t, p) => {
    const mode = p.text('mode')
    if (mode !== 'pixelwise' && mode !== 'pixelratio' && mode !== 'pixelavg') throw p.wrong('mode', 'a known mode')
    return {
      loss: confidenceWeightedLoss(t('loss'), t('conf'), t('ignore'), { threshold: p.number('conf_thresh'), mode }),
    }
  },
  cutmix: (t) => ({
    img: cutmix(t('img'), t('img_mix'), t('box')),
    mask: cutmix(t('mask'), t('mask_mix'), t('box')),
    conf: cutmix(t('conf'), t('conf_mix'), t('box')),
  }),
  sgd: (t, p) => {
    const options = { momentum: p.number('momentum'), weightDecay: p.number('weight_decay') }
    const steps = p.lists<number>('lr_used_per_step').length
    const outputs: Record<string, Tensor> = {}
    for (const [group, names] of p.lists<string>('groups').entries()) {
      for (const name of names) {
        let state = { parameter: t(name), momentumBuffer: fill(t(name).shape, 0) }
        for (let k = 0; k < steps; k++) {
          const gradient = t(`${name}_grad${k}`)
          state = sgd({ ...state, gradient, learningRate: t(learningRateName(k, group)) }, options)
          outputs[`${name}_step${k}`] = state.parameter
          outputs[`${name}_buf${k}`] = state.momentumBuffer
        }
      }
    }
    return outputs
  },
  matmul: (t) => ({ y: matmul(t('a'), t('b')) }),
  matmul_f16_acc_f32: (t) => ({ y: matmul(t('a'), t('b')) }),
}

const learningRateName = (step: number, group: number): string => `learning rate ${step} ${group}`

/** What changes from step to step is an input: the learning rates of an sgd case. */
function learningRates(row: GoldenCase): Record<string, EngineTensor> {
  if (row.op !== 'sgd') return {}
  const steps = new Params(row).lists<number>('lr_used_per_step')
  return Object.fromEntries(
    steps.flatMap((rates, step) =>
      rates.map((rate, group) => [learningRateName(step, group), { spec: spec([]), data: Float32Array.of(rate) }]),
    ),
  )
}

async function checkCase(device: Device, row: GoldenCase, file: TensorFile): Promise<CaseResult[]> {
  const rule = rules[row.op]
  if (!rule) throw new UserError(`ops.json: case ${row.id} has the unknown operator '${row.op}'`)
  const load = (kind: 'in' | 'out' | 'gin' | 'gout', name: string): EngineTensor =>
    toEngine(file.get(`${row.id}/${kind}/${name}`), row.op === 'conv2d' && name === 'w')
  const inputs = { ...Object.fromEntries(row.in.map((name) => [name, load('in', name)])), ...learningRates(row) }
  const cotangents = Object.fromEntries(row.gout.map((name) => [name, load('gout', name)]))
  const specs = Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, tensor.spec]))
  const shapes = Object.fromEntries(Object.entries(cotangents).map(([name, tensor]) => [name, tensor.spec.shape]))
  const program = await compile(
    device,
    { ...specs, ...cotangentSpecs(shapes) },
    (tensors: Record<string, Tensor>) => {
      const get: Tensors = (name) => {
        const tensor = tensors[name]
        if (!tensor) throw new UserError(`ops.json: case ${row.id} has no input '${name}'`)
        return tensor
      }
      return withGradients(tensors, rule(get, new Params(row)), row.gin, row.gout)
    },
    { label: row.id },
  )
  try {
    const dataOf = (record: Record<string, EngineTensor>): Record<string, Data> =>
      Object.fromEntries(Object.entries(record).map(([name, tensor]) => [name, tensor.data]))
    program.run({ ...dataOf(inputs), ...cotangentData(dataOf(cotangents)) })
    const wanted = [
      ...row.out.map((name) => ({ key: name, kind: 'out' as const, name })),
      ...row.gin.map((name) => ({ key: `gradient/${name}`, kind: 'gin' as const, name })),
    ]
    const results = await program.readAll(wanted.map(({ key }) => key))
    return wanted.map(({ kind, name }, i) => ({
      name: `${row.id} ${kind}/${name}`,
      error: largestDifference(results[i] ?? [], load(kind, name).data),
      // What has no tolerance is a choice or a copy, and must be the same.
      tolerance: row.atol[`${kind}/${name}`] ?? 0,
    }))
  } finally {
    program.destroy()
  }
}

/** Compares every operator of `folder`/ops.json with the kernels: one result for each output and gradient. */
export async function checkOps(device: Device, folder: string): Promise<CaseResult[]> {
  const tensorFile = join(folder, 'ops.safetensors')
  if (!existsSync(tensorFile)) throw new UserError(`${tensorFile} is missing beside ops.json`)
  const file = new TensorFile(tensorFile)
  const { cases } = readJson<{ cases: readonly GoldenCase[] }>(join(folder, 'ops.json'))
  if (!Array.isArray(cases)) throw new UserError(`${join(folder, 'ops.json')} has no list of cases`)
  const results: CaseResult[] = []
  for (const row of cases) results.push(...(await checkCase(device, row, file)))
  return results
}
