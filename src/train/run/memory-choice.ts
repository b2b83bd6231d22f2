import type { AdapterTraits } from '../../engine/adapter.js'
import { megabytes } from '../../engine/device.js'
import type { DryAdapter } from '../../engine/dry-device.js'
import { productsPerByte, type Work } from '../../engine/work.js'
import { architectureOf } from '../../models/index.js'
import type { Config } from '../config/load.js'
import { modelsOf } from '../methods/index.js'
import { microBatches } from '../trainer/micro-batches.js'
import { type MemoryPart, memoryParts, type PlanOptions, planRun } from './plan-run.js'

/** Settings by which a training takes more or less memory. */
export interface MemoryChoice {
  /** Half precision. */
  readonly half: boolean
  /** Stages whose activations are computed again. */
  readonly stages: readonly string[]
  /** Labeled images of a part; `batch_size` where the batch is taken whole. */
  readonly micro: number
}

/** A choice, and what it comes to. */
export interface Alternative {
  readonly choice: MemoryChoice
  /** Planned for the whole training. */
  readonly bytes: number
  readonly parts: readonly MemoryPart[]
  /** Expected time of a step, in times of that of the first alternative. */
  readonly time: number
}

const costOf = ({ bytes, multiplyAdds }: Work): number => bytes + multiplyAdds / productsPerByte

/** A configuration with a choice; what was set stays. */
export function withChoice(config: Config, { half, stages, micro }: MemoryChoice): Config {
  return {
    ...config,
    amp: config.amp === 'auto' ? half : config.amp,
    ...(stages.length === 0 ? {} : { activation_checkpointing: [...stages] }),
    ...(micro === config.batch_size ? {} : { micro_batch: micro }),
  }
}

/**
 * The settings with which a training can take less memory, and what each takes. Their order is that in which they are
 * tried: what computes the same bits in more time comes first, then half precision, where `amp` leaves it open, then parts
 * of the batch, which change the results, few before many. What the configuration sets stays as it is.
 */
export class MemoryPlanner {
  private readonly planned = new Map<string, Promise<{ bytes: number; parts: MemoryPart[]; cost: number }>>()
  private sets: Promise<readonly (readonly string[])[]> | undefined

  constructor(
    private readonly real: DryAdapter & { readonly traits: AdapterTraits },
    private readonly options: PlanOptions,
  ) {}

  /** The alternative that takes the most memory and the least time. */
  get first(): MemoryChoice {
    const [level] = this.levels
    if (!level) throw new Error('unreachable: the batch can be taken whole')
    return { ...level, stages: this.options.config.activation_checkpointing ?? [] }
  }

  /** All stages of the model. */
  get stages(): string[] {
    const models = modelsOf(this.options.config)
    return [...new Set(models.flatMap(({ architecture, config }) => architectureOf(architecture).stagesOf(config)))]
  }

  /** Precisions and parts, in their order. */
  private get levels(): Pick<MemoryChoice, 'half' | 'micro'>[] {
    const { config } = this.options
    const { half, software } = this.real.traits
    const halves = config.amp !== 'auto' ? [config.amp && half] : !half ? [false] : software ? [false, true] : [true]
    const micros = config.micro_batch === undefined ? microBatches(config) : [config.micro_batch]
    return micros.flatMap((micro) => halves.map((half) => ({ half, micro })))
  }

  async alternative(choice: MemoryChoice): Promise<Alternative> {
    const [own, base] = [await this.plan(choice), await this.plan(this.first)]
    return { choice, bytes: own.bytes, parts: own.parts, time: own.cost / base.cost }
  }

  private plan(choice: MemoryChoice) {
    const key = JSON.stringify([choice.half, choice.stages, choice.micro])
    const known = this.planned.get(key)
    if (known) return known
    const made = this.compute(choice)
    this.planned.set(key, made)
    return made
  }

  private async compute(choice: MemoryChoice) {
    const options = { ...this.options, config: { ...withChoice(this.options.config, choice), amp: choice.half } }
    const run = await planRun(this.real, options)
    return { bytes: run.use.peak, parts: memoryParts(run, options), cost: costOf(run.trainer.work) }
  }

  /** Sets of stages, each of which has one more than the one before: what saves most for its time comes first. */
  private ladder(): Promise<readonly (readonly string[])[]> {
    this.sets ??= this.makeLadder()
    return this.sets
  }

  private async makeLadder(): Promise<readonly (readonly string[])[]> {
    const { config } = this.options
    if (config.activation_checkpointing) return [config.activation_checkpointing]
    const names = this.stages
    const none = await this.plan(this.first)
    const gains = new Map<string, number>()
    for (const stage of names) {
      const { bytes, cost } = await this.plan({ ...this.first, stages: [stage] })
      gains.set(stage, (none.bytes - bytes) / Math.max(1, cost - none.cost))
    }
    const order = [...names].sort((a, b) => (gains.get(b) ?? 0) - (gains.get(a) ?? 0))
    return [0, ...order.keys()].map((_, count) => names.filter((name) => order.slice(0, count).includes(name)))
  }

  /** The alternatives in their order, each planned when it is asked for. */
  private async *inOrder(): AsyncGenerator<Alternative> {
    yield await this.alternative(this.first)
    for (const [i, level] of this.levels.entries()) {
      const [least = [], ...more] = await this.ladder()
      for (const stages of i === 0 ? more : [least, ...more]) yield await this.alternative({ ...level, stages })
    }
  }

  /** All alternatives in their order. */
  async all(): Promise<Alternative[]> {
    const all: Alternative[] = []
    for await (const alternative of this.inOrder()) all.push(alternative)
    return all
  }

  /** The first alternative that fits into so many bytes; undefined where none does. */
  async choose(limit: number): Promise<Alternative | undefined> {
    for await (const alternative of this.inOrder()) if (alternative.bytes <= limit) return alternative
    return undefined
  }

  /** The alternative that takes the least memory. */
  async least(): Promise<Alternative> {
    return (await this.all()).reduce((least, other) => (other.bytes < least.bytes ? other : least))
  }

  /** A choice as settings; what is not open is left out. */
  show({ half, stages, micro }: MemoryChoice): string {
    const { config } = this.options
    const settings = [
      ...(config.amp === 'auto' && half ? ['amp: true'] : []),
      ...(stages.length > 0 ? [`activation_checkpointing: [${stages.join(', ')}]`] : []),
      ...(micro === config.batch_size ? [] : [`micro_batch: ${micro}`]),
    ]
    return settings.join(', ') || 'nothing computed again, the batch taken whole'
  }
}

/** The alternatives as a table, with a mark at the one that is chosen. */
export function alternativesTable(
  planner: MemoryPlanner,
  alternatives: readonly Alternative[],
  chosen: Alternative | undefined,
): string[] {
  const rows = alternatives.map(({ choice, bytes, time }) => {
    const isChosen = chosen && JSON.stringify(chosen.choice) === JSON.stringify(choice)
    return `${isChosen ? '*' : ' '} ${megabytes(bytes).padStart(12)}  ${time.toFixed(2).padStart(5)}  ${planner.show(choice)}`
  })
  return [`  ${'planned'.padStart(12)}  ${'time'.padStart(5)}  settings`, ...rows]
}
