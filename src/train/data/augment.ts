import type { Random } from '../random.js'
import {
  adjustBrightness,
  adjustContrast,
  adjustHue,
  adjustSaturation,
  type Box,
  cropWindow,
  gaussianBlur,
  grayscale,
  type Picture,
  place,
  resizeBilinear,
  resizeNearest,
} from './pixels.js'

/** Label of the padding of labeled pictures, unless the configuration has another `ignore_index`. */
export const IGNORE = 255

/** Draws of the geometry: the weak augmentation. */
export interface WeakDraws {
  /** Longer side after the resize, in pixels. */
  longSide: number
  cropX: number
  cropY: number
  flip: boolean
}

/** Colour jitter: factors, and the order of 0 brightness, 1 contrast, 2 saturation, 3 hue. */
export interface JitterDraws {
  order: readonly number[]
  brightness: number
  contrast: number
  saturation: number
  hue: number
}

/** Draws of one strong view; null where the operation is left out. */
export interface StrongDraws {
  jitter: JitterDraws | null
  gray: boolean
  /** Standard deviation of the blur, in pixels. */
  sigma: number | null
  box: Box | null
}

export interface UnlabeledDraws extends WeakDraws {
  strong1: StrongDraws
  strong2: StrongDraws
}

/** Views of size x size to be filled; the boxes are left out where they are not wanted. */
export interface UnlabeledViews {
  /** [S, S, 3] */
  weak: Uint8Array
  strong1: Uint8Array
  strong2: Uint8Array
  /** [S, S]: 255 in the padding, else 0 */
  ignore: Uint8Array
  /** [S, S]: 1 inside the CutMix box, else 0 */
  box1?: Uint8Array
  box2?: Uint8Array
}

/** Size after a resize that gives the longer side `longSide` pixels. */
export function targetSize(width: number, height: number, longSide: number): { width: number; height: number } {
  const scaled = (side: number, long: number) => Math.max(Math.trunc((side * longSide) / long + 0.5), 1)
  return height > width
    ? { width: scaled(width, height), height: longSide }
    : { width: longSide, height: scaled(height, width) }
}

/** Order of draws: longer side (half to double), crop x, crop y, flip. */
export function drawWeak(width: number, height: number, size: number, random: Random): WeakDraws {
  const long = Math.max(width, height)
  const longSide = Math.max(random.integer(Math.trunc(long * 0.5), long * 2 + 1), 1)
  const target = targetSize(width, height, longSide)
  return {
    longSide,
    cropX: random.integer(0, Math.max(target.width - size, 0) + 1),
    cropY: random.integer(0, Math.max(target.height - size, 0) + 1),
    flip: random.uniform() < 0.5,
  }
}

/** A box of `area` pixels, or null if it does not fit at (x, y). `ratio` is height by width. */
export function cutmixBox(size: number, area: number, ratio: number, x: number, y: number): Box | null {
  const w = Math.trunc(Math.sqrt(area / ratio))
  const h = Math.trunc(Math.sqrt(area * ratio))
  return x + w <= size && y + h <= size ? { x, y, w, h } : null
}

/** With probability 0.5 a box of 2 to 40 % of the area that fits, else null. */
export function drawCutmixBox(size: number, random: Random): Box | null {
  if (random.uniform() > 0.5) return null
  const area = random.uniform(0.02, 0.4) * size * size
  let box: Box | null = null
  while (box === null) {
    const ratio = random.uniform(0.3, 1 / 0.3)
    const x = random.integer(0, size)
    box = cutmixBox(size, area, ratio, x, random.integer(0, size))
  }
  return box
}

/** Order of draws: jitter (0.8), grayscale (0.2), blur (0.5), box. */
export function drawStrong(size: number, random: Random): StrongDraws {
  const jitter =
    random.uniform() < 0.8
      ? {
          order: Array.from(random.permutation(4)),
          brightness: random.uniform(0.5, 1.5),
          contrast: random.uniform(0.5, 1.5),
          saturation: random.uniform(0.5, 1.5),
          hue: random.uniform(-0.25, 0.25),
        }
      : null
  const gray = random.uniform() < 0.2
  const sigma = random.uniform() < 0.5 ? random.uniform(0.1, 2) : null
  return { jitter, gray, sigma, box: drawCutmixBox(size, random) }
}

export function drawUnlabeled(width: number, height: number, size: number, random: Random): UnlabeledDraws {
  const weak = drawWeak(width, height, size, random)
  const strong1 = drawStrong(size, random)
  return { ...weak, strong1, strong2: drawStrong(size, random) }
}

/** The four colour operations in the drawn order, in place. */
export function colorJitter(pixels: Uint8Array, draws: JitterDraws): void {
  for (const operation of draws.order) {
    if (operation === 0) adjustBrightness(pixels, draws.brightness)
    else if (operation === 1) adjustContrast(pixels, draws.contrast)
    else if (operation === 2) adjustSaturation(pixels, draws.saturation)
    else adjustHue(pixels, draws.hue)
  }
}

/** Resize, crop with black padding right and below, flip; into `out` [S, S, 3]. */
function weakImage(image: Picture, size: number, draws: WeakDraws, out: Uint8Array): void {
  const { width, height } = targetSize(image.width, image.height, draws.longSide)
  const window = cropWindow(width, height, size, draws.cropX, draws.cropY)
  place(resizeBilinear(image, width, height, window), 3, size, 0, draws.flip, out)
}

/** The same for a label map, padded with `fill`; into `out` [S, S]. */
function weakLabel(label: Picture, size: number, draws: WeakDraws, fill: number, out: Uint8Array): void {
  const { width, height } = targetSize(label.width, label.height, draws.longSide)
  const window = cropWindow(width, height, size, draws.cropX, draws.cropY)
  place(resizeNearest(label, width, height, window), 1, size, fill, draws.flip, out)
}

/** 255 in the padding, 0 elsewhere. */
function paddingMask(image: Picture, size: number, draws: WeakDraws, out: Uint8Array): void {
  const { width, height } = targetSize(image.width, image.height, draws.longSide)
  const { w, h } = cropWindow(width, height, size, draws.cropX, draws.cropY)
  place({ data: new Uint8Array(w * h), width: w, height: h }, 1, size, 255, draws.flip, out)
}

/** Colour and blur of one strong view, into `out` [S, S, 3]. */
function strongView(weak: Uint8Array, size: number, draws: StrongDraws, out: Uint8Array): void {
  out.set(weak)
  if (draws.jitter) colorJitter(out, draws.jitter)
  if (draws.gray) grayscale(out)
  if (draws.sigma !== null) gaussianBlur(out, size, draws.sigma)
}

/** 1 inside the box, 0 outside. */
export function boxMap(box: Box | null, size: number, out: Uint8Array): void {
  out.fill(0)
  if (!box) return
  for (let row = box.y; row < box.y + box.h; row++) out.fill(1, row * size + box.x, row * size + box.x + box.w)
}

/** Writes the augmented picture to `outImage` [S, S, 3] and its label map to `outLabel` [S, S]. */
export function applyLabeled(
  image: Picture,
  label: Picture,
  size: number,
  draws: WeakDraws,
  outImage: Uint8Array,
  outLabel: Uint8Array,
  ignore = IGNORE,
): void {
  weakImage(image, size, draws, outImage)
  weakLabel(label, size, draws, ignore, outLabel)
}

/** Fills the views of one unlabeled picture. Only the padding is ignored. */
export function applyUnlabeled(image: Picture, size: number, draws: UnlabeledDraws, out: UnlabeledViews): void {
  weakImage(image, size, draws, out.weak)
  strongView(out.weak, size, draws.strong1, out.strong1)
  strongView(out.weak, size, draws.strong2, out.strong2)
  paddingMask(image, size, draws, out.ignore)
  if (out.box1) boxMap(draws.strong1.box, size, out.box1)
  if (out.box2) boxMap(draws.strong2.box, size, out.box2)
}
