import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { cutmix } from '#dist/kernels/images.js'
import { take } from '#dist/kernels/take.js'
import * as augment from '#dist/train/data/augment.js'
import { gaussianBlur } from '#dist/train/data/blur.js'
import {
  adjustBrightness,
  adjustContrast,
  adjustHue,
  adjustSaturation,
  grayscale,
  hueShift,
} from '#dist/train/data/color.js'
import { fromHsv, toHsv } from '#dist/train/data/color-kernels.js'
import { toClasses } from '#dist/train/data/labels.js'
import { type Box, type Image, normalize } from '#dist/train/data/pixels.js'
import { resizeBilinear, resizeBilinearInto, resizeNearest, resizeNearestInto } from '#dist/train/data/resize.js'
import { type FileTensor, readSafetensors, toFloat32 } from '#dist/train/io/safetensors.js'
import { augmented, labeledFields, unlabeledFields } from '../support/augmented.js'
import { type GridTables, runDctCase, wrongEntries } from './dct.js'
import { channelsLast } from './files.js'
import { checkIntensityTables, type IntensityParams, type IntensityTables, runIntensityCase } from './intensity.js'

/** Largest error of one output beside what is allowed. */
export interface CaseResult {
  name: string
  error: number
  tolerance: number
}

interface GoldenStrong {
  jitter: boolean
  order: number[]
  b: number
  c: number
  s: number
  h: number
  gray: boolean
  blur: boolean
  sigma: number
  box?: Box | null
}

type Params = GoldenStrong & {
  out_h?: number
  out_w?: number
  width: number
  height: number
  size: number
  x: number
  y: number
  ignore_value: number
  factor: number
  long_side: number
  crop_x: number
  crop_y: number
  flip: boolean
  s1: GoldenStrong
  s2: GoldenStrong
  /** On the grid of coefficients. */
  box_dct: Box | null
}

interface GoldenCase {
  id: string
  op: string
  params: Params
  in: Record<string, string>
  out: string[]
  max_abs_diff: Record<string, number>
}

interface BoxRow {
  img_size: number
  size_pixels: number
  tries_ratio_x_y: [number, number, number][]
  box: Box
}

interface GoldenAugment extends GridTables {
  cases: GoldenCase[]
  /** Of the augmentations of AugSeg, which have tables of their own. */
  op_list?: string[]
  target_size_table?: { w: number; h: number; long_side: number; out: [number, number] }[]
  cutmix_box_table?: BoxRow[]
  cutmix_box_dct_table?: BoxRow[]
  hue_shift_table?: { factor: number; uint8_added_to_h: number }[]
}

type Outputs = Record<string, ArrayLike<number>>

function jitterDraws(p: GoldenStrong): augment.JitterDraws {
  return { order: p.order, brightness: p.b, contrast: p.c, saturation: p.s, hue: p.h }
}

function strongDraws(p: GoldenStrong): augment.StrongDraws {
  return { jitter: p.jitter ? jitterDraws(p) : null, gray: p.gray, sigma: p.blur ? p.sigma : null, box: p.box ?? null }
}

function weakDraws(p: Params): augment.WeakDraws {
  return { longSide: p.long_side, cropX: p.crop_x, cropY: p.crop_y, flip: p.flip }
}

/** A crop of a picture and its label in their own size. */
function padCrop(image: Image, label: Image, p: Params): Outputs {
  const longSide = Math.max(image.width, image.height)
  const draws = { longSide, cropX: p.x, cropY: p.y, flip: false, strong: [] }
  return augmented(image, label, p.size, labeledFields, draws, p.ignore_value)
}

function flipped(picture: Image, resizeInto: typeof resizeBilinearInto, channels: number): Uint8Array {
  const { width, height } = picture
  const data = new Uint8Array(picture.data.length)
  const window = { x: 0, y: 0, w: width, h: height }
  resizeInto(picture, width, height, window, true, { data, start: 0, pitch: width * channels })
  return data
}

/** Runs an operation that works in place on a copy. */
function changed(data: Uint8Array, change: (pixels: Uint8Array) => void): Uint8Array {
  const copy = new Uint8Array(data)
  change(copy)
  return copy
}

function toPlanes(values: Float32Array): Float32Array {
  const count = values.length / 3
  return values.map((_, i) => values[(i % count) * 3 + Math.floor(i / count)] as number)
}

/** Labels in which 0 is "ignore", as the data sets' reader turns them into classes. */
function withoutZero({ data, width, height }: Image): Uint8Array {
  const rules = { nclass: 255, ignoreIndex: 255, reduceZero: true }
  return toClasses({ width, height, values: data, colored: false }, rules, 'golden').label.data
}

/** Fields of an unlabeled image whose second strong view is that of a network which reads coefficients. */
const gridFields = {
  img_w: { view: 'weak' },
  img_s: { view: 'strong', draw: 0 },
  img_s_dct: { view: 'strong', draw: 1 },
  ignore_mask: { view: 'padding' },
  box_dct: { view: 'gridBox', draw: 1 },
  box: { view: 'spreadBox', draw: 1 },
} as const

function runCase(op: string, p: Params, input: (name: string) => Image, tensor: (name: string) => FileTensor): Outputs {
  const image = () => input('img')
  const data = () => input('img').data
  switch (op) {
    case 'resize':
      return {
        img: resizeBilinear(image(), p.width, p.height).data,
        mask: resizeNearest(input('mask'), p.width, p.height).data,
      }
    case 'pad_crop':
      return padCrop(image(), input('mask'), p)
    case 'hflip':
      return { img: flipped(image(), resizeBilinearInto, 3), mask: flipped(input('mask'), resizeNearestInto, 1) }
    case 'brightness':
      return { img: changed(data(), (d) => adjustBrightness(d, p.factor)) }
    case 'contrast':
      return { img: changed(data(), (d) => adjustContrast(d, p.factor)) }
    case 'saturation':
      return { img: changed(data(), (d) => adjustSaturation(d, p.factor)) }
    case 'hue':
      return { img: changed(data(), (d) => adjustHue(d, p.factor)) }
    case 'rgb_to_hsv':
      return { hsv: changed(data(), toHsv) }
    case 'hsv_to_rgb':
      return { img: changed(input('hsv').data, fromHsv) }
    case 'rgb_to_luma':
      return { l: changed(data(), grayscale).filter((_, i) => i % 3 === 0) }
    case 'color_jitter':
      return { img: changed(data(), (d) => augment.colorJitter(d, jitterDraws(p))) }
    case 'grayscale':
      return { img: changed(data(), grayscale) }
    case 'gaussian_blur':
      return { img: changed(data(), (d) => gaussianBlur(d, image().width, p.sigma)) }
    case 'normalize':
      return { img: toPlanes(normalize(data())) }
    case 'reduce_zero_label':
      return { mask: withoutZero(input('mask')) }
    case 'train_l':
      return augmented(image(), input('mask'), p.size, labeledFields, { ...weakDraws(p), strong: [] })
    case 'train_u': {
      const draws = { ...weakDraws(p), strong: [strongDraws(p.s1), strongDraws(p.s2)] }
      return augmented(image(), null, p.size, unlabeledFields, draws)
    }
    case 'train_u_dct': {
      const draws = { ...weakDraws(p), strong: [strongDraws(p.s1), { ...strongDraws(p.s2), box: p.box_dct }] }
      return augmented(image(), null, p.size, gridFields, draws)
    }
    default: {
      const outputs = runDctCase(op, input, tensor, p)
      if (!outputs) throw new Error(`augment.json has an unknown operation '${op}'`)
      return outputs
    }
  }
}

/** Images mixed with others of their batch, which an index names: bytes [N, 3, H, W]. */
async function mixedWithin(device: Device, input: (name: string) => FileTensor): Promise<Outputs> {
  const [{ shape, data }, { data: index }, { shape: boxShape, data: box }] = [input('x'), input('index'), input('box')]
  const [n = 0, channels = 0, height = 0, width = 0] = shape
  const inputs = {
    x: spec([n, height, width, channels], 'u8'),
    index: spec([n], 'u32'),
    box: spec(boxShape, 'u8'),
  }
  const program = await compile(device, inputs, (t) => ({ x: cutmix(t.x, take(t.x, t.index), t.box) }))
  program.run({
    x: channelsLast(data as Uint8Array, shape),
    index: Uint32Array.from(index as Int32Array),
    box: box as Uint8Array,
  })
  const mixed = channelsLast(Uint8Array.from(await program.read('x', 'u32')), [n, height * width, channels])
  program.destroy()
  return { x: mixed }
}

/**
 * Largest difference; infinite where more than 1 % of the values of a picture use the tolerance, which is there for
 * rounding alone.
 */
function largestError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  let largest = 0
  let different = 0
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number))
    if (difference > 0) different++
    if (!(difference <= largest)) largest = difference
  }
  const rounded = expected instanceof Uint8Array
  return rounded && different > 0.01 * expected.length + 1 ? Number.POSITIVE_INFINITY : largest
}

const isWrongBox = ({ img_size, size_pixels, tries_ratio_x_y, box }: BoxRow): boolean => {
  const boxes = tries_ratio_x_y.map(([ratio, x, y]) => augment.cutmixBox(img_size, size_pixels, ratio, x, y))
  const fits = boxes.find((candidate) => candidate !== null)
  return !fits || fits.x !== box.x || fits.y !== box.y || fits.w !== box.w || fits.h !== box.h
}

/** Wrong entries of the tables of integer rules that a file has. */
function checkTables(golden: GoldenAugment): CaseResult[] {
  const count = <T>(rows: readonly T[] | undefined, isWrong: (row: T) => boolean) => rows?.filter(isWrong).length
  const counts = {
    target_size_table: count(golden.target_size_table, ({ w, h, long_side, out }) => {
      const size = augment.targetSize(w, h, long_side)
      return size.width !== out[0] || size.height !== out[1]
    }),
    cutmix_box_table: count(golden.cutmix_box_table, isWrongBox),
    cutmix_box_dct_table: count(golden.cutmix_box_dct_table, isWrongBox),
    hue_shift_table: count(golden.hue_shift_table, (row) => hueShift(row.factor) !== row.uint8_added_to_h),
    ...wrongEntries(golden),
  }
  return Object.entries(counts).flatMap(([name, error]) => (error === undefined ? [] : [{ name, tolerance: 0, error }]))
}

/** Checks `augment.json` and `augment.safetensors` of a folder: every output of every case, and the tables. */
export async function checkAugment(device: Device, folder: string): Promise<CaseResult[]> {
  const golden = JSON.parse(readFileSync(join(folder, 'augment.json'), 'utf8')) as GoldenAugment
  const { tensors } = readSafetensors(join(folder, 'augment.safetensors'))
  const tensor = (name: string) => {
    const found = tensors.get(name)
    if (!found) throw new Error(`augment.safetensors has no tensor '${name}'`)
    return found
  }
  const results: CaseResult[] = []
  const ofAugSeg = golden.op_list ? (golden as unknown as IntensityTables) : undefined
  for (const golden_case of golden.cases) {
    const own = (name: string) => tensor(golden_case.in[name] ?? name)
    const input = (name: string): Image => {
      const { shape, data } = own(name)
      const [height = 0, width = 0] = shape
      return { data: data as Uint8Array, width, height }
    }
    const { op, params } = golden_case
    const outputs: Outputs = ofAugSeg
      ? runIntensityCase(op, params as unknown as IntensityParams, input, ofAugSeg)
      : op === 'cutmix_batch'
        ? await mixedWithin(device, own)
        : runCase(op, params, input, own)
    for (const name of golden_case.out) {
      const recorded = tensor(`${golden_case.id}/out/${name}`)
      const expected = recorded.dtype === 'U8' ? (recorded.data as Uint8Array) : toFloat32(recorded)
      results.push({
        name: `${golden_case.id}/${name}`,
        error: largestError(outputs[name] ?? [], expected),
        tolerance: golden_case.max_abs_diff[name] ?? 0,
      })
    }
  }
  return [...results, ...(ofAugSeg ? checkIntensityTables(ofAugSeg) : checkTables(golden))]
}
