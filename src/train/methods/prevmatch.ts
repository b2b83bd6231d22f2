import { z } from 'zod'
import { assign, read, scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import type { Program } from '../../engine/program.js'
import { spec } from '../../engine/shape.js'
import type { Store, Variable } from '../../engine/store.js'
import { normalizeImage } from '../../kernels/images.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, div, fill, mul, where } from '../../kernels/pointwise.js'
import { lowLogits, type SegmentationModel } from '../../models/segmentation.js'
import { PURPOSE, Random } from '../random.js'
import { consistencyLosses, pseudoLabels, weighted } from './losses.js'
import {
  type CompileProgram,
  type Draws,
  get,
  type Method,
  type MethodContext,
  type MetricSpec,
  type StepInfo,
} from './method.js'
import { SnapshotList } from './snapshots.js'
import { consistencyMetrics, FeatureDropout, unimatchLayout, unimatchMetrics, unimatchStep } from './unimatch.js'

const keys = {
  prev: z
    .strictObject({
      list_max_len: z.int().min(1).default(8).describe('Previous models kept; the oldest leaves first.'),
      model_num: z.int().min(1).default(3).describe('At most so many of them are drawn for a step.'),
      random_select: z
        .boolean()
        .default(true)
        .describe('Whether the number of models drawn is random from 1 to `model_num`, or always `model_num`.'),
      conf_thresh: z
        .number()
        .min(0)
        .max(1)
        .default(0.9)
        .describe('Pseudo-labels of previous models need at least this confidence.'),
      base_only_epoch: z.int().min(0).default(0).describe('No model is kept before this epoch.'),
    })
    .prefault({})
    .describe('Previous models of PrevMatch.'),
}

export type PreviousSettings = z.infer<typeof keys.prev>

const previousMetrics: readonly MetricSpec[] = [
  {
    name: 'loss_s1_prev',
    short: 'prev s1',
    curve: { chart: 'loss', label: 'strong 1, previous', color: 'amber', dashed: true },
    tensorboard: [['Loss s_prev', 0.5]],
  },
  {
    name: 'loss_s2_prev',
    short: 'prev s2',
    curve: { chart: 'loss', label: 'strong 2, previous', color: 'red', dashed: true },
    tensorboard: [['Loss s_prev', 0.5]],
  },
  {
    name: 'loss_fp_prev',
    short: 'prev fp',
    curve: { chart: 'loss', label: 'features, previous', color: 'green', dashed: true },
    tensorboard: [['Loss w_fp_prev', 1]],
  },
  {
    name: 'mask_ratio_prev',
    curve: { chart: 'mask', label: 'previous models', color: 'amber', dashed: true },
    tensorboard: [['Mask ratio_prev', 1]],
  },
]

export const prevmatchMetrics = [...unimatchMetrics, ...previousMetrics]

/** Weight of the previous models' losses in an epoch: rises linearly from 0 to 1 at half the training, then falls. */
export function lambdaAt(epoch: number, epochs: number): number {
  const middle = Math.floor(epochs / 2)
  return epoch < middle ? epoch / middle : 1 - (epoch - middle) / (epochs - middle)
}

interface DrawRandom {
  integer(low: number, highExclusive: number): number
  permutation(n: number): ArrayLike<number>
  dirichlet(n: number): number[]
}

/** Draws previous models from a list of `length`, without repetition, and Dirichlet weights for them. */
export function drawPrevious(
  random: DrawRandom,
  length: number,
  settings: Pick<PreviousSettings, 'random_select' | 'model_num'>,
): { prev_indices: readonly number[]; prev_weights: readonly number[] } {
  if (length === 0) return { prev_indices: [], prev_weights: [] }
  const wanted = settings.random_select ? random.integer(1, settings.model_num + 1) : settings.model_num
  const prev_indices = Array.from(random.permutation(length)).slice(0, wanted)
  return { prev_indices, prev_weights: random.dirichlet(prev_indices.length) }
}

/** The logits of previous models, summed with weights over the weak views of both unlabeled batches. */
class Ensemble {
  readonly snapshots: SnapshotList
  /** f32 [2 * unlabeled, h, w, nclass]: the sum for `img_u_w`, then for `img_u_w_mix`. */
  readonly logits: Variable
  private program: Program<{ weight: ReturnType<typeof spec>; accumulate: ReturnType<typeof spec> }> | undefined

  constructor(
    private readonly context: MethodContext,
    private readonly model: SegmentationModel,
    most: number,
  ) {
    const { size, unlabeled, workspace } = context
    const shape = [2 * unlabeled, model.logitSize(size[0]), model.logitSize(size[1]), model.config.nclass]
    this.logits = workspace.declare('previous logits', spec(shape))
    this.snapshots = new SnapshotList('previous models', most, (snapshot: Store) => this.program?.forget(snapshot))
  }

  async compile(compile: CompileProgram): Promise<void> {
    const image = (field: string): Tensor => normalizeImage(this.context.batch(field))
    this.program = await compile('previous models', { weight: spec([]), accumulate: spec([]) }, (t) => {
      const x = concat([image('img_u_w'), image('img_u_w_mix')], 0)
      const logits = mul(lowLogits(this.model, x, { training: false }), t.weight)
      assign(this.logits, add(where(t.accumulate, read(this.logits), fill([], 0)), logits))
      return {}
    })
  }

  /** One run per drawn model. */
  run(indices: ArrayLike<number>, weights: ArrayLike<number>): void {
    for (let i = 0; i < indices.length; i++) {
      const inputs = { weight: Float32Array.of(weights[i] ?? 0), accumulate: Float32Array.of(i === 0 ? 0 : 1) }
      const stores = new Map([[this.model.store, this.snapshots.at(indices[i] ?? 0)]])
      this.program?.run(inputs, { stores })
    }
  }
}

/**
 * PrevMatch (arXiv 2405.20610): UniMatch, with further losses against the pseudo-labels of a random ensemble of previous
 * models, which are kept whenever the validation reached a new best. Their weight is `lambdaAt`. On Cityscapes these losses
 * are weighed by the mean confidence instead of dropping what is below the threshold, as in the PrevMatch code.
 */
export const prevmatch: Method<typeof keys> = {
  name: 'prevmatch',
  description: 'UniMatch guided by an ensemble of previous models (arXiv 2405.20610)',
  keys,
  layout: () => unimatchLayout,
  create(context) {
    const { settings, size, labeled, unlabeled } = context
    const { prev, seed } = settings
    const model = context.model(0, 'model')
    const dropout = new FeatureDropout(seed, model, labeled + unlabeled)
    const ensemble = new Ensemble(context, model, prev.list_max_len)
    const { snapshots } = ensemble
    const confidence = {
      threshold: prev.conf_thresh,
      mode: settings.dataset === 'cityscapes' ? 'pixelavg' : 'pixelwise',
    } as const
    return {
      trained: [model],
      deployed: [{ name: 'model', model }],
      snapshots,
      inputs: { ...dropout.inputs, lambda: spec([]), denominator: spec([]) },
      metrics: prevmatchMetrics,
      losses(inputs) {
        const { students, sum, metrics } = unimatchStep(context, model, dropout.multipliers(inputs))
        const previous = scoped('previous', () => {
          const logits = read(ensemble.logits)
          const labels = (start: number) => pseudoLabels(slice(logits, 0, start, unlabeled), size)
          return consistencyLosses(students, labels(0), labels(unlabeled), confidence)
        })
        const weightedSum = add(sum, mul(weighted(previous), get(inputs, 'lambda')))
        return {
          total: div(weightedSum, get(inputs, 'denominator')),
          metrics: { ...metrics, ...consistencyMetrics(previous, '_prev') },
        }
      },
      compile: (compile) => ensemble.compile(compile),
      draw(at) {
        const random = new Random(seed, at.batchIndex, PURPOSE.previousModels)
        return { ...dropout.draw(at), ...drawPrevious(random, snapshots.length, prev) }
      },
      prepare({ epoch, epochs }: StepInfo, draws: Draws) {
        const guided = snapshots.length > 0
        const { prev_indices: indices = [], prev_weights: weights = [] } = draws
        if (guided && indices.length === 0) throw new Error('there are previous models, but none is drawn')
        if (guided) ensemble.run(indices, weights)
        const lambda = guided ? lambdaAt(epoch, epochs) : 0
        const scalars = { lambda: Float32Array.of(lambda), denominator: Float32Array.of(2 + lambda) }
        return {
          inputs: { ...dropout.values(draws), ...scalars },
          values: { lambda },
          absent: guided ? [] : previousMetrics.map(({ name }) => name),
        }
      },
      beginEpoch({ epoch, iteration, newBest }) {
        if (!newBest || epoch < prev.base_only_epoch) return []
        snapshots.push(model.store, `iteration-${String(iteration).padStart(7, '0')}`)
        const { length } = snapshots
        const line = `epoch ${epoch + 1}: kept the model; previous models: ${length}`
        return [{ name: 'previous', fields: { epoch, models: length }, line }]
      },
      destroy: () => snapshots.destroy(),
    }
  },
}
