import { read } from '../../engine/graph.js'
import { spec } from '../../engine/shape.js'
import type { Store, Variable } from '../../engine/store.js'
import type { Exchange } from '../../kernels/exchange.js'
import type { Mode, Noise, NoiseSpec } from '../../models/layers.js'
import { countBatches, type SegmentationModel } from '../../models/segmentation.js'
import type { Draws } from '../methods/method.js'
import { PURPOSE, Random } from '../random.js'

/** Multipliers that a pass through a model reads. */
interface PassNoise {
  readonly variable: Variable
  readonly noise: NoiseSpec
}

/** What the trace of a phase's step sends through the models. */
interface Phase {
  /** Calls in training mode so far: `features model`, `decode model`. */
  readonly calls: Map<string, number>
  /** By what a recorded draw in its place is called. */
  readonly noise: Map<string, PassNoise>
}

/**
 * Follows the passes in training mode through the models of a method while its steps are traced, and gives them what is
 * dropped at random: variables that are written before each step.
 */
export class TrainingPasses {
  /** As the method has them. */
  readonly models: SegmentationModel[] = []
  private readonly phases = new Map<string, Phase>()
  private current: { readonly name: string; readonly phase: Phase } | undefined

  /**
   * @param workspace takes the variables
   * @param exchange the ranks over which batch norm takes its statistics in training
   */
  constructor(
    private readonly workspace: Store,
    private readonly exchange?: Exchange | undefined,
  ) {}

  /** The model whose passes are followed. */
  follow(model: SegmentationModel): SegmentationModel {
    const { label } = model.store
    const { exchange } = this
    const inPass = (part: string, mode: Mode): Mode =>
      mode.training ? { ...mode, exchange, noise: this.noiseOf(label, this.countCall(`${part} ${label}`)) } : mode
    const followed: SegmentationModel = {
      ...model,
      features: (x, mode) => model.features(x, inPass('features', mode)),
      decode: (features, mode) => model.decode(features, inPass('decode', mode)),
    }
    this.models.push(followed)
    return followed
  }

  /** What is traced from here on is a step of this phase. */
  begin(name: string): void {
    const phase: Phase = { calls: new Map(), noise: new Map() }
    this.phases.set(name, phase)
    this.current = { name, phase }
  }

  /**
   * Before a step, or a part of its batch: draws what is dropped in it.
   * @param recorded draws that are taken instead, by `noise/<label of the model>/<pass>/<name>`
   */
  draw(phase: string, seed: number, batchIndex: number, recorded: Draws): void {
    const all = [...(this.phases.get(phase)?.noise ?? [])]
    for (const [i, [key, { variable, noise }]] of all.entries()) {
      const random = new Random(seed, batchIndex, PURPOSE.noise, i)
      const { samples, channels = 1, rate } = noise
      const multiplier = () => (random.uniform() < rate ? 0 : 1 / (1 - rate))
      const values = recorded[key] ?? Array.from({ length: samples * channels }, multiplier)
      this.workspace.write(variable.name, Float32Array.from(values))
    }
  }

  /** Behind a step: what its batch norms have seen. */
  count(phase: string, parts: number): void {
    const calls = this.phases.get(phase)?.calls
    for (const model of this.models) countBatches(model, parts * (calls?.get(`features ${model.store.label}`) ?? 0))
  }

  /** How many-th call it is in its phase, from 0. */
  private countCall(what: string): number {
    const calls = this.current?.phase.calls
    const before = calls?.get(what) ?? 0
    calls?.set(what, before + 1)
    return before
  }

  private noiseOf(label: string, pass: number): Noise {
    return (place, noise) => {
      const key = `noise/${label}/${pass}/${place}`
      const { current, workspace } = this
      const name = current?.name ? `${key} in ${current.name}` : key
      const { samples, channels } = noise
      const shape = channels === undefined ? [samples] : [samples, channels]
      const variable = workspace.has(name) ? workspace.get(name) : workspace.declare(name, spec(shape))
      current?.phase.noise.set(key, { variable, noise })
      return read(variable)
    }
  }
}
