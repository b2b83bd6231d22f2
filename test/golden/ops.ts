import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { type Data, type Spec, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { batchNormEvaluation, batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { cutmix } from '#dist/kernels/images.js'
import { confidenceWeightedLoss, crossEntropy, crossEntropyMean, ohemCrossEntropy } from '#dist/kernels/loss.js'
import { matmul } from '#dist/kernels/matmul.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { add, mul, relu, scale, toU32 } from '#dist/kernels/pointwise.js'
import { globalAveragePool, maxPool2d } from '#dist/kernels/pool.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { softmax, softmaxMax } from '#dist/kernels/softmax.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, toFloat32 } from '#dist/train/io/safetensors.js'
import { cotangentData, cotangentSpecs, withGradients } from '../support/check.js'
import { type AugSegTables, augsegRules, checkAugSegTables, mixingInputsOf } from './augseg.js'
import { type GoldenCase, Params, type Rules, type Tensors } from './case.js'
import { dualTeacherRules } from './dual-teacher.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { type CaseResult, largestDifference } from './report.js'
import { transformerRules } from './transformer.js'
import { scalarsOf, updateRules } from './updates.js'
import { dropoutInputsOf, visionTransformerRules } from './vision-transformer.js'

/** A tensor as the engine holds it: maps NHWC, weights [KH, KW, I, O], halves as floats. */
interface EngineTensor {
  readonly spec: Spec
  readonly data: Float32Array | Uint8Array | Uint32Array
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

type Layout = 'map' | 'weights' | 'plain'

/** What a tensor of four axes is. */
function layoutOf(op: string, name: string): Layout {
  if (op === 'softmax_last') return 'plain'
  return name === 'w' || name.startsWith('p/') ? 'weights' : 'map'
}

function toEngine(tensor: FileTensor, layout: Layout): EngineTensor {
  const { shape } = tensor
  const data = tensor.data instanceof Uint8Array ? tensor.data : toFloat32(tensor)
  const dtype = data instanceof Uint8Array ? 'u8' : 'f32'
  const [n = 1, c = 1, h = 1, w = 1] = shape
  if (shape.length !== 4 || layout === 'plain') return { spec: spec(shape, dtype), data }
  if (layout === 'weights' && data instanceof Float32Array)
    return { spec: spec([h, w, c, n]), data: kernelLast(data, shape) }
  return { spec: spec([n, h, w, c], dtype), data: channelsLast(data, shape) }
}

const rules: Rules = {
  ...transformerRules,
  ...visionTransformerRules,
  ...updateRules,
  ...augsegRules,
  ...dualTeacherRules,
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
  pair_loss: (t, p) => {
    const conf = p.text('gate') === 'confidence' ? t('conf') : scale(t('label'), 1)
    const options = { threshold: p.number('conf_thresh'), mode: 'pixelwise' } as const
    return { loss: confidenceWeightedLoss(crossEntropy(t('logits'), t('label')), conf, t('ignore'), options) }
  },
  unsup_loss: (t, p, store) => {
    if (p.inputs().includes('target')) return augsegRules.unsup_loss?.(t, p, store) ?? {}
    const options = { threshold: p.number('thresh'), mode: 'pixelwise' } as const
    return { loss: confidenceWeightedLoss(crossEntropy(t('logits'), t('label')), t('conf'), t('ignore'), options) }
  },
  rank_loss: (t, p) => {
    const ranks = p.number('ranks')
    const { name, kwargs } = p.record('criterion') as { name: string; kwargs: Record<string, number> }
    const { ignore_index: ignoreIndex = 255, thresh: threshold = 0, min_kept: minKept = 0 } = kwargs
    const each = (t('x').shape[0] ?? 0) / ranks
    const target = scale(t('target'), 1)
    const losses = Array.from({ length: ranks }, (_, rank) => {
      const [logits, labels] = [t('x'), target].map((x) => slice(x, 0, rank * each, each)) as [Tensor, Tensor]
      if (name === 'CELoss') return crossEntropyMean(logits, toU32(labels), { ignoreIndex })
      return ohemCrossEntropy(logits, toU32(labels), { threshold, minKept, ignoreIndex }).loss
    })
    return { loss: scale(losses.reduce(add), 1 / ranks) }
  },
  matmul: (t) => ({ y: matmul(t('a'), t('b')) }),
  matmul_f16_acc_f32: (t) => ({ y: matmul(t('a'), t('b')) }),
}

async function checkCase(device: Device, row: GoldenCase, file: TensorFile): Promise<CaseResult[]> {
  const rule = rules[row.op]
  if (!rule)
    return [{ name: `${row.id}: there is no rule for the operator '${row.op}'`, error: Infinity, tolerance: 0 }]
  const load = (kind: 'in' | 'out' | 'gin' | 'gout', name: string): EngineTensor =>
    toEngine(file.get(`${row.id}/${kind}/${name}`), layoutOf(row.op, name))
  const scalars = Object.entries(scalarsOf(row)).map(([name, value]): [string, EngineTensor] => [
    name,
    { spec: spec([]), data: Float32Array.of(value) },
  ])
  const inputs = {
    ...Object.fromEntries(row.in.map((name) => [name, load('in', name)])),
    ...Object.fromEntries(scalars),
    ...(row.op === 'inject_cutmix' ? mixingInputsOf(row, file) : {}),
    ...(row.op === 'comp_dropout' ? dropoutInputsOf(row, file) : {}),
  }
  // Without a cotangent it is the loss whose gradient is recorded.
  const passing = row.gout ?? ['loss']
  const one = { spec: spec([]), data: Float32Array.of(1) }
  const passed = row.gin.length === 0 ? [] : passing
  const cotangents = Object.fromEntries(passed.map((name) => [name, row.gout ? load('gout', name) : one]))
  const specs = Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, tensor.spec]))
  const shapes = Object.fromEntries(Object.entries(cotangents).map(([name, tensor]) => [name, tensor.spec.shape]))
  const store = new Store(device, row.id)
  const program = await compile(
    device,
    { ...specs, ...cotangentSpecs(shapes) },
    (tensors: Record<string, Tensor>) => {
      const get: Tensors = (name) => {
        const tensor = tensors[name]
        if (!tensor) throw new UserError(`ops.json: case ${row.id} has no input '${name}'`)
        return tensor
      }
      return withGradients(tensors, rule(get, new Params(row), store), row.gin, passing)
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
    const compared = wanted.map(({ kind, name }, i) => ({
      name: `${row.id} ${kind}/${name}`,
      error: largestDifference(results[i] ?? [], load(kind, name).data),
      // What has no tolerance is a choice or a copy, and must be the same.
      tolerance: row.atol[`${kind}/${name}`] ?? row.atol[kind === 'out' ? name : kind] ?? 0,
    }))
    return compared.map((result, i) => {
      const { kind, name } = wanted[i] ?? { kind: 'out', name: '' }
      const isUpdated = row.op === 'adamw' && kind === 'out' && row.in.includes(`grad0/${name}`)
      if (!isUpdated || largestDifference(load('in', name).data, load('out', name).data) > result.tolerance)
        return result
      // What the update makes of a parameter is no check of it where the file has that as the parameter, too.
      return { ...result, skipped: 'the file has the parameter behind the updates as the one before them' }
    })
  } finally {
    program.destroy()
    store.destroy()
  }
}

/** Compares every operator of `folder`/ops.json with the kernels: one result for each output and gradient. */
export async function checkOps(device: Device, folder: string): Promise<CaseResult[]> {
  const tensorFile = join(folder, 'ops.safetensors')
  if (!existsSync(tensorFile)) throw new UserError(`${tensorFile} is missing beside ops.json`)
  const file = new TensorFile(tensorFile)
  const { cases, ...tables } = readJson<{ cases: readonly GoldenCase[] } & Partial<AugSegTables>>(
    join(folder, 'ops.json'),
  )
  if (!Array.isArray(cases)) throw new UserError(`${join(folder, 'ops.json')} has no list of cases`)
  const results: CaseResult[] = []
  for (const row of cases) results.push(...(await checkCase(device, row, file)))
  return tables.box_table ? [...results, ...checkAugSegTables(tables as AugSegTables)] : results
}
