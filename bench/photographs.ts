import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import type { Sample } from '#dist/train/data/dataset.js'
import { Random } from '../cases/case.js'

/** A kind of photographs, named by the data set whose files they are like in size, format and number of bytes. */
export interface PhotographKind {
  readonly name: string
  readonly width: number
  readonly height: number
  readonly format: 'jpg' | 'png'
  /** Amplitude of the finest noise, in levels of 255: it decides how many bytes a file has. */
  readonly grain: number
  /** Different photographs. */
  readonly count: number
  /** Side of the crops that are taken of them. */
  readonly crop: number
}

export const pascalLike: PhotographKind = {
  name: 'Pascal',
  ...{ width: 500, height: 375, format: 'jpg', grain: 26, count: 12, crop: 321 },
}
export const cityscapesLike: PhotographKind = {
  name: 'Cityscapes',
  ...{ width: 2048, height: 1024, format: 'png', grain: 4, count: 4, crop: 801 },
}

export const nclass = 21
const regionCount = 6

/** Smooth noise [H, W], 0 to 255: random levels of a grid with cells of `cell` pixels, interpolated. */
function smoothNoise(random: Random, width: number, height: number, cell: number): Promise<Uint8Array> {
  const [columns, rows] = [Math.ceil(width / cell) + 1, Math.ceil(height / cell) + 1]
  const levels = Uint8Array.from({ length: columns * rows }, () => random.integer(256))
  const grid = sharp(levels, { raw: { width: columns, height: rows, channels: 1 } })
  return grid.resize(width, height, { fit: 'fill', kernel: 'cubic' }).extractChannel(0).raw().toBuffer()
}

/**
 * Regions of a colour each, shaded by noise whose amplitude grows with its wavelength, as in photographs.
 * @returns the image [H, W, 3] and its label [H, W]
 */
async function paint(
  { width, height, grain }: PhotographKind,
  random: Random,
): Promise<readonly [Uint8Array, Uint8Array]> {
  const octaves = await Promise.all([2, 8, 32, 128].map((cell) => smoothNoise(random, width, height, cell)))
  const levels = await smoothNoise(random, width, height, Math.round(width / 5))
  const regions = Array.from({ length: regionCount }, () => ({
    color: Array.from({ length: 3 }, () => 48 + 160 * random.uniform()),
    class: random.integer(nclass),
  }))
  const image = new Uint8Array(width * height * 3)
  const label = new Uint8Array(width * height)
  for (let i = 0; i < label.length; i++) {
    const region = regions[((levels[i] as number) * regionCount) >> 8]
    if (!region) throw new Error('unreachable: there is no such region')
    let shade = grain * (random.uniform() - 0.5)
    for (const [k, octave] of octaves.entries()) shade += grain * 2 ** k * ((octave[i] as number) / 255 - 0.5)
    for (const [c, level] of region.color.entries()) image[3 * i + c] = Math.max(0, Math.min(255, level + shade))
    label[i] = region.class
  }
  return [image, label]
}

/** Writes the photographs of a kind and their labels to `folder`: 0.jpg, 0-label.png, 1.jpg, … */
export async function writePhotographs(kind: PhotographKind, folder: string): Promise<Sample[]> {
  const { width, height, format, count } = kind
  mkdirSync(folder, { recursive: true })
  const samples: Sample[] = []
  for (let n = 0; n < count; n++) {
    const [pixels, label] = await paint(kind, new Random(`photograph ${n}`))
    const sample = { name: String(n), image: join(folder, `${n}.${format}`), label: join(folder, `${n}-label.png`) }
    const photograph = sharp(pixels, { raw: { width, height, channels: 3 } })
    await (format === 'jpg' ? photograph.jpeg({ quality: 94 }) : photograph.png()).toFile(sample.image)
    const map = sharp(label, { raw: { width, height, channels: 1 } }).toColourspace('b-w')
    await map.png({ adaptiveFiltering: true }).toFile(sample.label)
    samples.push(sample)
  }
  return samples
}

/** Calls `body` with the photographs of a kind, which are removed afterwards unless they are in `keptIn`. */
export async function withPhotographs<T>(
  kind: PhotographKind,
  body: (samples: readonly Sample[]) => Promise<T>,
  keptIn?: string,
): Promise<T> {
  if (keptIn !== undefined) return body(await writePhotographs(kind, join(keptIn, kind.name)))
  const folder = mkdtempSync(join(tmpdir(), 'atrous-bench-'))
  try {
    return await body(await writePhotographs(kind, folder))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
