import type { Random } from '../random.js'
import { type Batch, type BatchFieldSpec, type FieldData, type FieldSpec, type Geometry, isOfBatch } from './batch.js'
import { gaussianBlur } from './blur.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation, grayscale } from './color.js'
import { dctCoefficients, gridSize } from './dct.js'
import { changeIntensity, drawIntensity, type IntensityDraw } from './intensity.js'
import { type DistortionDraws, distortionOf, drawDistortion } from './photometric.js'
import { type Box, cropWindow, type Image } from './pixels.js'
import { resizeBilinearInto, resizeNearest, resizeNearestInto } from './resize.js'

/** Label of the padding of labeled images, unless the configuration has another `ignore_index`. */
export const IGNORE = 255

interface Size {
  readonly width: number
  readonly height: number
}

/** What an image is resized to: its longer side in pixels, or its size. */
type ResizeDraw = { readonly longSide: number } | ({ readonly longSide?: undefined } & Size)

/** Draws of the geometry: the weak augmentation. */
export type WeakDraws = ResizeDraw & {
  readonly cropX: number
  readonly cropY: number
  readonly flip: boolean
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

/** Draws of one image: of its geometry, of each strong view, the operations of each `intensity` view, and its distortion. */
export type SampleDraws = WeakDraws & {
  readonly strong: readonly StrongDraws[]
  readonly intensity?: readonly (readonly IntensityDraw[])[]
  readonly distortion?: DistortionDraws
}

/** Size after a resize that gives the longer side `longSide` pixels. */
export function targetSize(width: number, height: number, longSide: number): { width: number; height: number } {
  const scaled = (side: number, long: number) => Math.max(Math.trunc((side * longSide) / long + 0.5), 1)
  return height > width
    ? { width: scaled(width, height), height: longSide }
    : { width: longSide, height: scaled(height, width) }
}

/** Size after a resize by a factor of `base`. */
export function scaledSize([height, width]: readonly [number, number], factor: number): Size {
  const scaled = (side: number) => Math.max(Math.trunc(side * factor), 1)
  return { width: scaled(width), height: scaled(height) }
}

/** Size after a resize that gives the shorter side `shortSide` pixels. */
export function shortSideSize({ width, height }: Size, shortSide: number): Size {
  const factor = shortSide / Math.min(width, height)
  const scaled = (side: number) => Math.max(Math.trunc(side * factor + 0.5), 1)
  return { width: scaled(width), height: scaled(height) }
}

function drawResize({ width, height }: Size, { resize }: Geometry, random: Random): ResizeDraw {
  if (resize && 'scale' in resize) {
    const factor = random.uniform(...resize.scale)
    if ('base' in resize) return scaledSize(resize.base, factor)
    return shortSideSize({ width, height }, Math.max(Math.trunc(resize.shortSide * factor), 1))
  }
  const long = Math.max(width, height)
  const [least, most] = resize?.longSide ?? [Math.trunc(long * 0.5), long * 2]
  return { longSide: Math.max(random.integer(least, most + 1), 1) }
}

const sizeAfter = ({ width, height }: Size, draw: ResizeDraw): Size =>
  draw.longSide === undefined ? draw : targetSize(width, height, draw.longSide)

/** A label map, and the label of its padding. */
interface Annotation {
  readonly label: Image
  readonly ignore: number
}

/** How often a crop is drawn anew because of the classes that it shows. */
const maxCropsRefused = 10

/**
 * Order of draws: resize, crop x, crop y, flip; where the image is flipped first: resize, flip, crop x, crop y. A crop that is
 * refused is followed by another.
 */
export function drawWeak(
  { width, height }: Size,
  size: number,
  random: Random,
  geometry: Geometry = {},
  annotation?: Annotation,
): WeakDraws {
  const resize = drawResize({ width, height }, geometry, random)
  const target = sizeAfter({ width, height }, resize)
  const drawFlip = () => random.uniform() < 0.5
  const first = geometry.flipsFirst ? drawFlip() : undefined
  const drawCrop = () => ({
    cropX: random.integer(0, Math.max(target.width - size, 0) + 1),
    cropY: random.integer(0, Math.max(target.height - size, 0) + 1),
  })
  let crop = drawCrop()
  const { maxClassShare } = geometry
  if (annotation && maxClassShare !== undefined) {
    const isRefused = () =>
      largestClassShare(annotation, size, { ...resize, ...crop, flip: first ?? false }, geometry) >= maxClassShare
    for (let refused = 0; refused < maxCropsRefused && isRefused(); refused++) crop = drawCrop()
  }
  return { ...resize, ...crop, flip: first ?? drawFlip() }
}

/** Share of the class with most pixels among the annotated ones of a crop; 1 where none is annotated. */
function largestClassShare({ label, ignore }: Annotation, size: number, draws: WeakDraws, geometry: Geometry): number {
  const { width, height, window } = placementOf(label, size, draws, geometry)
  const counts = new Uint32Array(256)
  for (const value of resizeNearest(label, width, height, window).data) (counts[value] as number)++
  counts[ignore] = 0
  const annotated = counts.reduce((sum, count) => sum + count, 0)
  return annotated === 0 ? 1 : Math.max(...counts) / annotated
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

/**
 * Order of draws: jitter (0.8), grayscale (0.2), blur (0.5), box.
 * @param size side of what the box lies in
 */
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

/**
 * Draws for one image: its geometry, then the strong views, the operations and the distortion that its fields name.
 * @param annotation of a labeled image
 */
export function drawSample(
  image: Image,
  size: number,
  fields: Readonly<Record<string, FieldSpec>>,
  random: Random,
  geometry?: Geometry,
  annotation?: Annotation,
): SampleDraws {
  const weak = drawWeak(image, size, random, geometry, annotation)
  const all = Object.values(fields)
  const drawn = all.flatMap((field) => ('draw' in field && field.view !== 'intensity' ? [field] : []))
  const onGrid = drawn.filter(({ view }) => view === 'gridBox' || view === 'spreadBox').map(({ draw }) => draw)
  const strong = Array.from({ length: Math.max(0, ...drawn.map(({ draw = -1 }) => draw + 1)) }, (_, draw) =>
    drawStrong(onGrid.includes(draw) ? gridSize(size) : size, random),
  )
  const mosts: number[] = []
  for (const field of all) if (field.view === 'intensity') mosts[field.draw] = field.most
  const intensity = Array.from(mosts, (most = 1) => drawIntensity(most, random))
  if (!all.some(({ view }) => view === 'distorted')) return { ...weak, strong, intensity }
  return { ...weak, strong, intensity, distortion: drawDistortion(random) }
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

/** Size of a resized image, the part of it that the crop shows, and where that part lies in the crop. */
interface Placement extends Size {
  readonly window: Box
  /** Columns of padding on the left. */
  readonly left: number
  readonly flip: boolean
  readonly isPadded: boolean
}

function placementOf(image: Image, size: number, draws: WeakDraws, { flipsFirst }: Geometry): Placement {
  const { cropX, cropY, flip } = draws
  const { width, height } = sizeAfter(image, draws)
  const window = cropWindow(width, height, size, cropX, cropY)
  const isPadded = window.w < size || window.h < size
  // A column of the mirrored image is one of the image, counted from the other side.
  if (flip && flipsFirst) window.x = width - cropX - window.w
  // Else padding is right and below, and then all is mirrored.
  return { width, height, window, left: flip && !flipsFirst ? size - window.w : 0, flip, isPadded }
}

function fillColor(pixels: Uint8Array, color: readonly [number, number, number]): void {
  pixels.set(color)
  for (let filled = 3; filled < pixels.length; filled *= 2) pixels.copyWithin(filled, 0, filled)
}

/** Resize, crop with padding of a colour, flip; into `out` [S, S, 3]. */
function weakImage(
  image: Image,
  size: number,
  { width, height, window, left, flip, isPadded }: Placement,
  padding: readonly [number, number, number],
  out: Uint8Array,
): void {
  if (isPadded) fillColor(out, padding)
  resizeBilinearInto(image, width, height, window, flip, { data: out, start: 3 * left, pitch: 3 * size })
}

/** The same for a label map, padded with `fill`; into `out` [S, S]. */
function weakLabel(label: Image, size: number, placement: Placement, fill: number, out: Uint8Array): void {
  const { width, height, window, left, flip, isPadded } = placement
  if (isPadded) out.fill(fill)
  resizeNearestInto(label, width, height, window, flip, { data: out, start: left, pitch: size })
}

/** 255 in the padding, 0 elsewhere. */
function paddingMask(size: number, { window, left }: Placement, out: Uint8Array): void {
  out.fill(255)
  for (let row = 0; row < window.h; row++) out.fill(0, row * size + left, row * size + left + window.w)
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

const { fround } = Math

/** A box of cells on the pixels: 1 in those whose nearest cell lies inside, in the float32 of PyTorch's `interpolate`. */
export function spreadBox(box: Box | null, size: number, out: Uint8Array): void {
  out.fill(0)
  if (!box) return
  const cells = gridSize(size)
  const factor = fround(cells / size)
  const inside = (start: number, length: number) =>
    Uint8Array.from({ length: size }, (_, pixel) => {
      const cell = Math.min(Math.floor(fround(pixel * factor)), cells - 1) - start
      return cell >= 0 && cell < length ? 1 : 0
    })
  const row = inside(box.x, box.w)
  for (const [y, isInside] of inside(box.y, box.h).entries()) if (isInside === 1) out.set(row, y * size)
}

/** An image with what was drawn for it. */
interface Sample {
  readonly label: Image | null
  readonly size: number
  readonly draws: SampleDraws
  readonly placement: Placement
  readonly ignore: number
  /** The weak view, [S, S, 3]. */
  readonly weak: Uint8Array
}

/** A field that is made of one image. */
type ImageField = Exclude<FieldSpec, BatchFieldSpec>
/** One of bytes. */
type ByteField = Exclude<ImageField, { readonly view: 'coefficients' }>

/** How each view of bytes is made, into `out` [S, S, 3] or [S, S], or [gridSize(S), gridSize(S)]. */
const views: {
  readonly [V in ByteField['view']]: (sample: Sample, field: ByteField & { view: V }, out: Uint8Array) => void
} = {
  weak: ({ weak }, _, out) => {
    if (out !== weak) out.set(weak)
  },
  label: ({ label, size, placement, ignore }, _, out) => {
    if (!label) throw new Error('unreachable: an image of a labeled stream has a label')
    weakLabel(label, size, placement, ignore, out)
  },
  padding: ({ size, placement }, _, out) => paddingMask(size, placement, out),
  strong: ({ weak, size, draws }, { draw }, out) => strongView(weak, size, drawnOf(draws.strong, draw), out),
  cutmixBox: ({ size, draws }, { draw }, out) => boxMap(drawnOf(draws.strong, draw).box, size, out),
  intensity: ({ weak, size, draws }, { draw }, out) => {
    out.set(weak)
    changeIntensity(out, size, drawnOf(draws.intensity ?? [], draw))
  },
  distorted: ({ weak, size, placement: { window, left }, draws: { distortion } }, _, out) => {
    if (!distortion) throw new Error('unreachable: the distortion was not drawn')
    out.set(weak)
    const distort = distortionOf(distortion)
    for (let row = 0; row < window.h; row++) {
      const from = 3 * (row * size + left)
      distort(out.subarray(from, from + 3 * window.w))
    }
  },
  gridBox: ({ size, draws }, { draw }, out) => boxMap(drawnOf(draws.strong, draw).box, gridSize(size), out),
  spreadBox: ({ size, draws }, { draw }, out) => spreadBox(drawnOf(draws.strong, draw).box, size, out),
}

/** Coefficients of the weak view, or of the strong one of a draw. */
function coefficients({ weak, size, draws }: Sample, draw: number | undefined, out: Float32Array): void {
  const shown = draw === undefined ? weak : new Uint8Array(weak.length)
  if (draw !== undefined) strongView(weak, size, drawnOf(draws.strong, draw), shown)
  dctCoefficients({ data: shown, width: size, height: size }, out)
}

function drawnOf<T>(drawn: readonly T[], draw: number): T {
  const found = drawn[draw]
  if (!found) throw new Error(`unreachable: view ${draw} was not drawn`)
  return found
}

/**
 * Fills the fields of one image, except those that are made of all images of a step.
 * @param label its label map, where a field shows it
 * @param out by field: see `fieldSpec`, of one image
 * @param ignore label of the padding
 * @param geometry of the stream
 */
export function augment(
  image: Image,
  label: Image | null,
  size: number,
  fields: Readonly<Record<string, FieldSpec>>,
  draws: SampleDraws,
  out: Batch,
  ignore = IGNORE,
  geometry: Geometry = {},
): void {
  const shown = Object.entries(fields).find(([, { view }]) => view === 'weak')?.[0]
  const place = shown === undefined ? undefined : out[shown]
  const weak = place instanceof Uint8Array ? place : new Uint8Array(size * size * 3)
  const placement = placementOf(image, size, draws, geometry)
  weakImage(image, size, placement, geometry.padding ?? [0, 0, 0], weak)
  const sample = { label, size, draws, placement, ignore, weak }
  for (const [name, field] of Object.entries(fields)) {
    if (isOfBatch(field)) continue
    const part = out[name]
    if (!part) throw new Error(`unreachable: the batch has no field '${name}'`)
    fill(sample, field, part)
  }
}

function fill(sample: Sample, field: ImageField, out: FieldData): void {
  const isBytes = out instanceof Uint8Array
  if (field.view === 'coefficients' && !isBytes) coefficients(sample, field.draw, out)
  else if (field.view !== 'coefficients' && isBytes) fillBytes(sample, field, out)
  else throw new Error(`unreachable: the view ${field.view} is of another type`)
}

function fillBytes<V extends ByteField['view']>(sample: Sample, field: ByteField & { view: V }, out: Uint8Array): void {
  views[field.view](sample, field, out)
}
