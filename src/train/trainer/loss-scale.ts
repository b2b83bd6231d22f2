import * as e from '../../engine/expr.js'
import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { spec } from '../../engine/shape.js'
import type { Store, Variable } from '../../engine/store.js'
import { nonFiniteCounts } from '../../kernels/finite.js'
import { pointwise, sum } from '../../kernels/pointwise.js'

/** Where the loss scale of a training stands, between two steps. */
export interface LossScaleState {
  readonly scale: number
  /** Steps with finite gradients since the scale last changed. */
  readonly goodSteps: number
  readonly skippedSteps: number
}

const initial: LossScaleState = { scale: 2 ** 16, goodSteps: 0, skippedSteps: 0 }
const names = Object.keys(initial) as (keyof LossScaleState)[]
const growthInterval = 2000
/** Gradients that are not finite with a smaller scale are so for another reason than the range of f16. */
export const smallestScale = 2 ** -14
/**
 * A larger scale keeps no more of the gradients: at this one f16 holds what is 2^-48 in the loss's own measure. Growing
 * without end, the scale would only find out again and again where f16 ends.
 */
const largestScale = 2 ** 24

/** Whether a value that was read from a file is the state of a loss scale. */
export function isLossScale(value: unknown): value is LossScaleState {
  if (typeof value !== 'object' || value === null) return false
  const numbers: Partial<Record<keyof LossScaleState, unknown>> = value
  return names.every((name) => Number.isFinite(numbers[name])) && Number(numbers.scale) > 0
}

/** A state as training goes on from it: runs that grew their scale further resume with the largest one. */
export const withinLimit = (state: LossScaleState): LossScaleState => ({
  ...state,
  scale: Math.min(state.scale, largestScale),
})

/**
 * Dynamic loss scaling as `torch.cuda.amp.GradScaler`: the loss is multiplied by a scale, so that gradients do not vanish in f16; a
 * step whose gradients are not finite changes no parameter and halves the scale, and 2000 good ones in a row double it, up to 2^24.
 * The device decides, so that nothing waits for it.
 */
export class LossScale {
  private readonly variables: Readonly<Record<keyof LossScaleState, Variable>>

  /** @param store of its own, which `destroy` frees */
  constructor(readonly store: Store) {
    const declare = (name: keyof LossScaleState) => store.declare(name, spec([]), Float32Array.of(initial[name]))
    this.variables = {
      scale: declare('scale'),
      goodSteps: declare('goodSteps'),
      skippedSteps: declare('skippedSteps'),
    }
  }

  /** Within a step: what the loss is multiplied by, a scalar. */
  scale(): Tensor {
    return read(this.variables.scale)
  }

  /**
   * Within a step: decides by the scaled gradients of all parameters.
   * @returns a scalar that is 0 where all are finite, and the steps skipped so far
   */
  update(gradients: readonly Tensor[]): { nonFinite: Tensor; skippedSteps: Tensor } {
    const nonFinite = sum(nonFiniteCounts(gradients, this.store.device.traits.maxStorageBuffers))
    const { scale, goodSteps, skippedSteps } = this.variables
    const [one, two] = [e.constant(1), e.constant(2)]
    const state = [read(scale), read(goodSteps), nonFinite]
    const grows = (good: e.Expr) => e.greaterEqual(e.add(good, one), e.constant(growthInterval))
    const nextScale = e.formula((scale, good, bad) => {
      const grown = e.where(e.greater(e.constant(largestScale), scale), e.mul(scale, two), scale)
      return e.where(bad, e.div(scale, two), e.where(grows(good), grown, scale))
    })
    const nextGood = e.formula((_, good, bad) =>
      e.where(bad, e.constant(0), e.where(grows(good), e.constant(0), e.add(good, one))),
    )
    const nextSkipped = e.formula((skipped, bad) => e.add(skipped, e.greater(bad, e.constant(0))))
    const skipped = pointwise('skippedSteps', [nextSkipped], [read(skippedSteps), nonFinite])
    assign(scale, pointwise('lossScale', [nextScale], state))
    assign(goodSteps, pointwise('goodSteps', [nextGood], state))
    assign(skippedSteps, skipped)
    return { nonFinite, skippedSteps: skipped }
  }

  async state(): Promise<LossScaleState> {
    const values = await this.store.readAll(names)
    const at = (name: keyof LossScaleState) => values.get(name)?.[0] ?? Number.NaN
    return { scale: at('scale'), goodSteps: at('goodSteps'), skippedSteps: at('skippedSteps') }
  }

  /** Goes on from a state. */
  restore(state: LossScaleState): void {
    for (const name of names) this.store.write(name, Float32Array.of(state[name]))
  }

  destroy(): void {
    this.store.destroy()
  }
}
