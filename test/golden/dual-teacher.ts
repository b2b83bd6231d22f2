import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import * as e from '#dist/engine/expr.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { type Data, type Spec, spec } from '#dist/engine/shape.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation, toGray } from '#dist/kernels/color.js'
import { concat } from '#dist/kernels/movement.js'
import { add, broadcastTo, fill, mul, pointwise, relu, sumTo, toU32 } from '#dist/kernels/pointwise.js'
import { softmaxMax } from '#dist/kernels/softmax.js'
import { cutBox, cutMixView, denormalizedLevels, type MixedImageDraws } from '#dist/train/data/cutmix-view.js'
import type { FileTensor } from '#dist/train/io/safetensors.js'
import {
  classMask,
  classMixLoss,
  confidentBytes,
  cutMixLabels,
  cutMixLoss,
  mixedByMask,
  presentClasses,
  quantizedConfidence,
  strongViewLoss,
} from '#dist/train/methods/dual-teacher-losses.js'
import { meanTeacherDecay } from '#dist/train/methods/mean-teacher.js'
import { learningRateAt } from '#dist/train/trainer/lr-schedule.js'
import type { Rules } from './case.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import type { CaseResult } from './report.js'

/** Classes that label maps of the cases may have. */
const classes = 24

/** 0 to n - 1. */
const counting = (n: number): Tensor =>
  concat(
    Array.from({ length: n }, (_, i) => fill([1], i)),
    0,
  )

/** What has the drawn places, [N, M], among the classes that are present in each image, [N, C]. */
function drawnClasses(label: Tensor, places: Tensor): { drawn: Tensor; classes: Tensor } {
  const [n = 0, count = 0] = places.shape
  const numbers = broadcastTo(counting(classes), [n, classes])
  const present = presentClasses(label, classes, counting(n))
  const isBefore = e.formula((other, own, isThere) => e.mul(isThere, e.greater(own, other)))
  const before = pointwise(
    'before',
    [isBefore],
    [numbers.reshape(n, 1, classes), numbers.reshape(n, classes, 1), present.reshape(n, 1, classes)],
  )
  const place = sumTo(before, [n, classes, 1])
  const hits = e.formula((place, drawn, isThere) => e.mul(isThere, e.equal(place, drawn)))
  const inputs = [place, places.reshape(n, 1, count), present.reshape(n, classes, 1)]
  const drawn = sumTo(pointwise('drawn', [hits], inputs), [n, classes, 1]).reshape(n, classes)
  const across = [place.reshape(n, 1, classes), places.reshape(n, count, 1), present.reshape(n, 1, classes)]
  const next = add(numbers, fill([], 1)).reshape(n, 1, classes)
  const found = sumTo(mul(pointwise('found', [hits], across), next), [n, count, 1]).reshape(n, count)
  return { drawn, classes: add(found, fill([], -1)) }
}

/** Operators of Dual Teacher. */
export const dualTeacherRules: Rules = {
  dt_cutmix_loss: (t, p) => ({ loss: cutMixLoss(t('logits'), t('label'), t('conf_q'), p.number('conf_thresh')).loss }),
  dt_classmix_loss: (t, p) => {
    const labels = softmaxMax(t('teacher_logits'))
    const mixed = (x: Tensor) => mixedByMask(t('mask'), x, toU32(t('shuffle')))
    const target = { label: mixed(labels.label), confidence: mixed(labels.confidence) }
    const { loss } = classMixLoss(t('logits'), target, p.number('conf_thresh'))
    return { loss, label: target.label, conf: target.confidence }
  },
  dt_consistency_loss: (t, p) => {
    const labels = { label: t('label'), confidence: t('conf') }
    return { loss: strongViewLoss(t('logits'), labels, t('mask_x'), p.number('conf_thresh'), 255).loss }
  },
  class_mask: (t) => {
    const label = toU32(t('label'))
    const { drawn, classes: chosen } = drawnClasses(label, t('drawn_positions'))
    const prefers = e.formula((drawn, number) => e.add(e.mul(e.constant(classes), drawn), number))
    const priority = pointwise('priority', [prefers], [drawn, counting(classes)])
    return { classes: chosen, mask: classMask(label, priority, counting(label.shape[0] ?? 0)) }
  },
  conf_quantise: (t, p) => {
    const bytes = quantizedConfidence(t('conf'))
    return { q: bytes, confident: confidentBytes(bytes, p.number('conf_thresh')) }
  },
  drop_path: (t) => {
    const [n = 0] = t('mult').shape
    return { y: relu(add(t('skip'), mul(t('branch'), t('mult').reshape(n, 1, 1, 1)))) }
  },
}

/** A case of `augment.json`. */
interface ViewCase {
  readonly id: string
  readonly op: string
  readonly params: Readonly<Record<string, unknown>>
  readonly in: Readonly<Record<string, string>>
  readonly out: readonly string[]
  readonly max_abs_diff: Readonly<Record<string, number>>
  readonly max_bad_fraction?: number | null
}

/** `augment.json` of Dual Teacher. */
interface DualTeacherViews {
  readonly cases: readonly ViewCase[]
  readonly cut_box_table: readonly {
    readonly h: number
    readonly w: number
    readonly lam: number
    readonly center_y: number
    readonly center_x: number
    readonly y0_y1_x0_x1: readonly number[]
  }[]
  readonly lr_table: readonly { readonly step: number; readonly mult_official: number }[]
  readonly ema_table: readonly { readonly i: number; readonly alpha: number }[]
}

type Outputs = Readonly<Record<string, ArrayLike<number>>>

/** One run of a program of its own. */
async function computed(
  device: Device,
  inputs: Readonly<Record<string, readonly [Spec, Data]>>,
  body: (t: (name: string) => Tensor) => Tensor,
): Promise<Data> {
  const entries = Object.entries(inputs)
  const specs = Object.fromEntries(entries.map(([name, [of]]) => [name, of]))
  const program = await compile(device, specs, (tensors: Record<string, Tensor>) => ({
    out: body((name) => tensors[name] as Tensor),
  }))
  program.run(Object.fromEntries(entries.map(([name, [, data]]) => [name, data])))
  const [out] = await program.readAll(['out'])
  program.destroy()
  if (!out) throw new Error('unreachable: there is one output')
  return out
}

const jitters = [adjustBrightness, adjustContrast, adjustSaturation, adjustHue]
const jitterNames = ['brightness_float', 'contrast_float', 'saturation_float', 'hue_float']

/** Changes of colours on normalised images. */
async function floatView(device: Device, { op, params }: ViewCase, image: FileTensor): Promise<Outputs> {
  const { b, c, s, h, gray_u = 0, factor = 0 } = params as Record<string, number>
  const single = jitterNames.indexOf(op)
  const isJitter = op === 'jitter_float'
  const order = isJitter ? (params.order as number[]) : single >= 0 ? [single] : []
  const factors = isJitter ? [b, c, s, h] : jitterNames.map(() => factor)
  const [n = 0, channels = 0, height = 0, width = 0] = image.shape
  const scalars = factors.map((value, k) => [`factor ${k}`, [spec([]), Float32Array.of(value ?? 0)]] as const)
  const pixels = channelsLast(image.data as Float32Array, image.shape) as Float32Array<ArrayBuffer>
  const inputs = { image: [spec([n, height, width, channels]), pixels] as const, ...Object.fromEntries(scalars) }
  const out = await computed(device, inputs, (t) => {
    const jittered = order.reduce((x, k) => jitters[k]?.(x, t(`factor ${k}`)) ?? x, t('image'))
    return op === 'gray_float' || (isJitter && (gray_u as number) < Math.fround(0.2)) ? toGray(jittered) : jittered
  })
  return { img: out }
}

interface CutMixParams {
  readonly cut_perm: readonly number[]
  readonly cut_lam: number
  readonly cut_center_y: readonly number[]
  readonly cut_center_x: readonly number[]
  readonly aug_jitter_u: readonly number[]
  readonly aug_blur_u: readonly number[]
  readonly aug_flip_u: readonly number[]
  readonly aug_order: readonly (readonly number[])[]
  readonly aug_factors: readonly (readonly number[])[]
  readonly aug_sigma: readonly number[]
}

/** Draws of the CutMix view from the uniform numbers behind them. */
function imageDraws(p: CutMixParams, i: number): MixedImageDraws {
  const [brightness = 0, contrast = 0, saturation = 0, hue = 0] = p.aug_factors[i] ?? []
  const isAbove = (values: readonly number[], limit: number) => (values[i] ?? 0) > Math.fround(limit)
  const jitter = { order: p.aug_order[i] ?? [], brightness, contrast, saturation, hue }
  return {
    jitter: isAbove(p.aug_jitter_u, 0.2) ? jitter : null,
    sigma: isAbove(p.aug_blur_u, 0.5) ? (p.aug_sigma[i] ?? 0) : null,
    flip: isAbove(p.aug_flip_u, 0.5),
  }
}

async function cutMixCase(device: Device, params: CutMixParams, input: (name: string) => FileTensor): Promise<Outputs> {
  const { shape } = input('img')
  const [n = 0, , size = 0] = shape
  const images = channelsLast(input('img').data as Uint8Array, shape)
  const { cut_lam: lambda, cut_perm: sources } = params
  const boxes = params.cut_center_y.map((y, i) => cutBox(size, size, lambda, y, params.cut_center_x[i] ?? 0))
  const draws = { sources, boxes, images: sources.map((_, i) => imageDraws(params, i)) }
  const img = new Uint8Array(images.length)
  const bytes = 3 * size * size
  for (let i = 0; i < n; i++) cutMixView(images, size, draws, i, img.subarray(i * bytes, (i + 1) * bytes))
  const box = Uint8Array.from({ length: n * size * size }, (_, at) => {
    const { x, y, w, h } = boxes[Math.floor(at / (size * size))] ?? { x: 0, y: 0, w: 0, h: 0 }
    const [row, column] = [Math.floor(at / size) % size, at % size]
    return Number(row >= y && row < y + h && column >= x && column < x + w)
  })
  const mapped = (map: Uint8Array, box: Uint8Array) =>
    computed(
      device,
      {
        map: [spec([n, size, size], 'u8'), new Uint8Array(map)],
        box: [spec([n, size, size], 'u8'), new Uint8Array(box)],
        sources: [spec([n], 'u32'), Uint32Array.from(sources)],
        mirrored: [spec([n]), Float32Array.from(draws.images, ({ flip }) => Number(flip))],
      },
      (t) => cutMixLabels(toU32(t('map')), t('sources'), t('box'), t('mirrored')),
    )
  return {
    img,
    label: await mapped(input('label').data as Uint8Array, box),
    // Its boxes are not pasted.
    conf_q: await mapped(input('conf_q').data as Uint8Array, new Uint8Array(box.length)),
    boxes: boxes.flatMap(({ x, y, w, h }) => [y, y + h, x, x + w]),
  }
}

/** Outputs of a case in the layout of images [N, H, W, 3]. */
async function runView(device: Device, view: ViewCase, tensor: (name: string) => FileTensor): Promise<Outputs> {
  const input = (name: string) => tensor(view.in[name] ?? name)
  if (view.op === 'denorm_u8') return { table: denormalizedLevels.flatMap((levels) => [...levels]) }
  if (view.op === 'cutmix_view') return cutMixCase(device, view.params as unknown as CutMixParams, input)
  return floatView(device, view, input('img'))
}

/**
 * The largest error; of float images the share of values `max_bad_fraction`, the largest ones, is left aside, and of bytes
 * more than 1 % that are not equal is too many.
 */
function errorOf(actual: ArrayLike<number>, { data, shape }: FileTensor, badFraction: number): number {
  const isMap = shape.length === 4
  const expected = isMap ? channelsLast(data as Uint8Array | Float32Array, shape) : (data as ArrayLike<number>)
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  const errors = Array.from({ length: expected.length }, (_, i) =>
    Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? 0)),
  )
  if (errors.some(Number.isNaN)) return Number.POSITIVE_INFINITY
  errors.sort((a, b) => b - a)
  const different = errors.filter((error) => error > 0).length
  if (data instanceof Uint8Array && different > 0.01 * errors.length + 1) return Number.POSITIVE_INFINITY
  return errors[Math.floor(badFraction * errors.length)] ?? 0
}

const isOfDualTeacher = (golden: Partial<DualTeacherViews>): golden is DualTeacherViews =>
  golden.cases !== undefined && golden.cut_box_table !== undefined && golden.ema_table !== undefined

const wrong = (flags: readonly boolean[]): number => flags.filter((flag) => flag).length

/** Checks `augment.json` where it is one of Dual Teacher: every output of every case, and the tables. */
export async function checkDualTeacherViews(device: Device, folder: string): Promise<CaseResult[] | undefined> {
  const golden = readJson<Partial<DualTeacherViews>>(join(folder, 'augment.json'))
  if (!isOfDualTeacher(golden)) return undefined
  const file = new TensorFile(join(folder, 'augment.safetensors'))
  const tensor = (name: string) => file.get(name)
  const results: CaseResult[] = []
  for (const view of golden.cases) {
    const outputs = await runView(device, view, tensor)
    for (const name of view.out) {
      const expected = tensor(`${view.id}/out/${name}`)
      const error = errorOf(outputs[name] ?? [], expected, view.max_bad_fraction ?? 0)
      results.push({ name: `${view.id}/${name}`, error, tolerance: view.max_abs_diff[name] ?? 0 })
    }
  }
  const official = { power: 1, warmup_iterations: 1500, warmup_ratio: 1e-6, iterations: 50_000, set: 'before' } as const
  const boxes = golden.cut_box_table.map(({ h, w, lam, center_y, center_x, y0_y1_x0_x1 }) => {
    const box = cutBox(h, w, lam, center_y, center_x)
    return String([box.y, box.y + box.h, box.x, box.x + box.w]) !== String(y0_y1_x0_x1)
  })
  const rates = golden.lr_table.map(({ step, mult_official: wanted }) => {
    return Math.abs(learningRateAt(1, step, 31_600, official) - wanted) > 1e-12
  })
  const decays = golden.ema_table.map(({ i, alpha }) => Math.abs(meanTeacherDecay(i, 0.99) - alpha) > 1e-12)
  return [
    ...results,
    { name: 'cut_box_table', error: wrong(boxes), tolerance: 0 },
    { name: 'lr_table', error: wrong(rates), tolerance: 0 },
    { name: 'ema_table', error: wrong(decays), tolerance: 0 },
  ]
}
