import { balancedScenes } from '#dist/demo/balanced.js'
import { scene } from '#dist/demo/scenes.js'
import type { MemoryImages } from '#dist/train/data/memory-batch.js'
import type { Image } from '#dist/train/data/pixels.js'
import type { Scene } from '../../protocol.js'

/** How large a training is that is watched. */
export interface Extent {
  /** Side of the scenes, and of the crops, in pixels. */
  readonly size: number
  readonly crop: number
  readonly batchSize: number
  readonly unlabeled: number
  readonly epochs: number
  /** Steps from one look at the held-out scenes to the next; a divisor of those of an epoch. */
  readonly look: number
}

/** As the command `demo` trains. */
export const large: Extent = { size: 128, crop: 73, batchSize: 4, unlabeled: 320, epochs: 10, look: 10 }

/** For software adapters, where a step of the large one takes many seconds. */
export const small: Extent = { size: 48, crop: 33, batchSize: 2, unlabeled: 20, epochs: 12, look: 5 }

const labeledScenes = 3
const heldOutScenes = 6

/** A scene that is painted when its pixels are first needed. */
class PaintedImage implements Image {
  private painted: Uint8Array | undefined

  constructor(
    private readonly seed: number,
    private readonly index: number,
    private readonly size: number,
  ) {}

  get data(): Uint8Array {
    this.painted ??= paint(this.seed, this.index, this.size).image
    return this.painted
  }

  get width(): number {
    return this.size
  }

  get height(): number {
    return this.size
  }
}

/** Scene `index` of the world `seed`. */
export function paint(seed: number, index: number, size: number): Scene {
  const { image, label } = scene(seed, index, size)
  return { size, image: new Uint8Array(image), label: new Uint8Array(label) }
}

/** What two trainings learn from and are looked at with. */
export interface World {
  readonly labeled: readonly Scene[]
  readonly heldOut: readonly Scene[]
  readonly images: MemoryImages
}

/** Lists as those of the command `demo`: unlabeled scenes first, then held-out ones, then labeled ones. */
export function paintWorld(seed: number, { size, unlabeled }: Extent): World {
  const first = unlabeled + heldOutScenes
  const labeled = balancedScenes(seed, size, labeledScenes, first).map((index) => paint(seed, index, size))
  const heldOut = Array.from({ length: heldOutScenes }, (_, i) => paint(seed, unlabeled + i, size))
  const pairs = labeled.map(({ image, label }) => {
    const sides = { width: size, height: size }
    return { image: { data: image, ...sides }, label: { data: label, ...sides } }
  })
  // As in a run, labeled pictures are repeated to the length of an epoch.
  const repeated = Array.from({ length: unlabeled }, (_, i) => pairs[i % pairs.length] ?? []).flat()
  const others = Array.from({ length: unlabeled }, (_, i) => new PaintedImage(seed, i, size))
  return { labeled, heldOut, images: { labeled: repeated, unlabeled: others } }
}
