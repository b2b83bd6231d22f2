import type { Device } from '../../engine/device.js'
import { assign, read, type Tensor } from '../../engine/graph.js'
import { type CompileOptions, compile, type Program } from '../../engine/program.js'
import { spec } from '../../engine/shape.js'
import type { Store, Variable } from '../../engine/store.js'
import { normalizeImage } from '../../kernels/augment.js'
import { concat } from '../../kernels/movement.js'
import { add, fill, mul, where } from '../../kernels/pointwise.js'
import { lowLogits, type SegmentationModel } from '../../models/segmentation.js'

/** The previous models: snapshots of the weights, the oldest first; the oldest leaves when there are too many. */
export class PreviousModels {
  private readonly snapshots: { readonly name: string; readonly store: Store }[] = []

  /** @param onLeave called with a snapshot that leaves, before its buffers are freed */
  constructor(
    private readonly most: number,
    private readonly onLeave: (snapshot: Store) => void = () => {},
  ) {}

  get length(): number {
    return this.snapshots.length
  }

  /** The snapshot at a position, 0 being the oldest. Throws where there is none. */
  at(index: number): Store {
    const snapshot = this.snapshots[index]
    if (!snapshot) throw new Error(`there are ${this.length} previous models, but number ${index} is asked for`)
    return snapshot.store
  }

  /** Names of the snapshots, the oldest first. */
  get names(): string[] {
    return this.snapshots.map(({ name }) => name)
  }

  /** Adds a copy of the present values of `store` under a name. Returns the copy. */
  push(store: Store, name: string): Store {
    const copy = store.snapshot(`previous model ${name}`)
    this.snapshots.push({ name, store: copy })
    while (this.snapshots.length > this.most) {
      const oldest = this.snapshots.shift()
      if (oldest) this.leave(oldest.store)
    }
    return copy
  }

  destroy(): void {
    for (const { store } of this.snapshots.splice(0)) this.leave(store)
  }

  private leave(snapshot: Store): void {
    this.onLeave(snapshot)
    snapshot.destroy()
  }
}

/** Which previous models guide a step: positions in the list, and their weights. */
export interface PreviousDraws {
  readonly prev_indices: readonly number[]
  readonly prev_weights: readonly number[]
}

export interface PreviousSettings {
  /** Previous models kept. */
  readonly list_max_len: number
  /** Previous models per step, at most. */
  readonly model_num: number
  /** Draw 1 to `model_num` of them rather than `model_num`. */
  readonly random_select: boolean
  readonly conf_thresh: number
  /** No model is kept before this epoch. */
  readonly base_only_epoch: number
}

interface DrawRandom {
  integer(low: number, highExclusive: number): number
  permutation(n: number): ArrayLike<number>
  dirichlet(n: number): number[]
}

/** Draws previous models from a list of `length`, without repetition, and Dirichlet weights for them. */
export function drawPrevious(random: DrawRandom, length: number, settings: PreviousSettings): PreviousDraws {
  if (length === 0) return { prev_indices: [], prev_weights: [] }
  const wanted = settings.random_select ? random.integer(1, settings.model_num + 1) : settings.model_num
  const prev_indices = Array.from(random.permutation(length)).slice(0, wanted)
  return { prev_indices, prev_weights: random.dirichlet(prev_indices.length) }
}

const names = ['img_u_w', 'img_u_w_mix', 'weight', 'accumulate'] as const

/** Sums the weighted logits of previous models over both unlabeled batches, at the decoder's size. */
export class Ensemble {
  private constructor(
    private readonly program: Program,
    private readonly model: SegmentationModel,
  ) {}

  /**
   * @param images shape of each unlabeled batch, [N, H, W, 3]
   * @param sum f32 variable [2 N, H/4, W/4, nclass] that takes the sum
   */
  static async compile(
    device: Device,
    model: SegmentationModel,
    images: readonly [number, number, number, number],
    sum: Variable,
    options: Pick<CompileOptions, 'arena' | 'onProgress' | 'autocast'> = {},
  ): Promise<Ensemble> {
    const inputs = {
      img_u_w: spec(images, 'u8'),
      img_u_w_mix: spec(images, 'u8'),
      weight: spec([]),
      accumulate: spec([]),
    } satisfies Record<(typeof names)[number], unknown>
    const body = (t: Record<(typeof names)[number], Tensor>): Record<string, Tensor> => {
      const x = concat([normalizeImage(t.img_u_w), normalizeImage(t.img_u_w_mix)], 0)
      const logits = mul(lowLogits(model, x, { training: false }), t.weight)
      assign(sum, add(where(t.accumulate, read(sum), fill([], 0)), logits))
      return {}
    }
    return new Ensemble(await compile(device, inputs, body, { label: 'previous models', ...options }), model)
  }

  /** One run per drawn model. */
  run(images: { img_u_w: Uint8Array; img_u_w_mix: Uint8Array }, previous: PreviousModels, draws: PreviousDraws): void {
    for (const [i, index] of draws.prev_indices.entries()) {
      const weight = Float32Array.of(draws.prev_weights[i] ?? 0)
      const accumulate = Float32Array.of(i === 0 ? 0 : 1)
      const stores = new Map([[this.model.store, previous.at(index)]])
      this.program.run({ ...images, weight, accumulate }, { stores })
    }
  }

  forget(snapshot: Store): void {
    this.program.forget(snapshot)
  }

  destroy(): void {
    this.program.destroy()
  }
}
