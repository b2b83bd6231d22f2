import { z } from 'zod'
import { scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { spec } from '../../engine/shape.js'
import { normalizeCoefficients } from '../../kernels/coefficients.js'
import { cutmix, normalizeImage } from '../../kernels/images.js'
import { confidenceWeightedLoss, confidentRatio, crossEntropy } from '../../kernels/loss.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, scale } from '../../kernels/pointwise.js'
import { take } from '../../kernels/take.js'
import type { ModelChoice } from '../../models/index.js'
import { lowLogits, type SegmentationModel, upsample } from '../../models/segmentation.js'
import type { BatchLayout, StreamSpec } from '../data/batch.js'
import { PURPOSE, Random } from '../random.js'
import { agreement } from './agreement.js'
import { type Member, memberKey, namedMembers, specOf } from './co-training-members.js'
import { type PseudoLabels, pseudoLabels, supervisedLoss } from './losses.js'
import { type CommonSettings, get, type Method, type MethodContext, type MetricSpec, type Tensors } from './method.js'

const keys = {
  members: z
    .array(memberKey)
    .min(2, { error: 'expected two members or more, such as [cnn, dct, segformer]' })
    .optional()
    .describe(
      'Networks of co-training that label unlabeled images for each other, in place of the one of `backbone` and `model`: ' +
        'kinds, or keys of each. Default: `[cnn, dct, segformer]`.',
    ),
  unlabeled_weight: z
    .number()
    .min(0)
    .optional()
    .describe('Co-training: weight of the losses of the unlabeled images. Default: 1.'),
}

type CoTrainingSettings = CommonSettings & z.infer<z.ZodObject<typeof keys>>

const usualMembers: Member[] = [{ kind: 'cnn' }, { kind: 'dct' }, { kind: 'segformer' }]

const membersOf = ({ members = usualMembers }: Pick<CoTrainingSettings, 'members'>) => namedMembers(members)

/** What the members of a training read. */
function inputsOf(settings: CoTrainingSettings): { readonly image: boolean; readonly dct: boolean } {
  const members = membersOf(settings)
  return { image: members.some(({ kind }) => kind !== 'dct'), dct: members.some(({ kind }) => kind === 'dct') }
}

/** Draw 0 is the strong view of images; draw 1 that of coefficients, with the box that both share. */
function layoutOf(settings: CoTrainingSettings): BatchLayout {
  const { image, dct } = inputsOf(settings)
  const labeled: StreamSpec = {
    name: 'labeled',
    split: 'labeled',
    purpose: { order: PURPOSE.labeledOrder, sample: PURPOSE.labeledSample },
    fields: {
      ...(image ? { img_x: { view: 'weak' } } : {}),
      ...(dct ? { dct_x: { view: 'coefficients' } } : {}),
      mask_x: { view: 'label' },
    },
  }
  const unlabeled: StreamSpec = {
    name: 'unlabeled',
    split: 'unlabeled',
    purpose: { order: PURPOSE.unlabeledOrder, sample: PURPOSE.unlabeledSample },
    fields: {
      ...(image ? { img_u_w: { view: 'weak' }, img_u_s: { view: 'strong', draw: 0 } } : {}),
      ...(dct
        ? {
            dct_u_w: { view: 'coefficients' },
            dct_u_s: { view: 'coefficients', draw: 1 },
            cutmix_box_dct: { view: 'gridBox', draw: 1 },
          }
        : {}),
      ignore_mask: { view: 'padding' },
      cutmix_box: { view: 'spreadBox', draw: 1 },
    },
  }
  return [labeled, unlabeled]
}

/** A member at work. */
interface CoTrained {
  readonly name: string
  readonly kind: Member['kind']
  readonly model: SegmentationModel
}

/** What a member makes of a batch. */
interface Predictions {
  /** Logits of the labeled images, [N, H, W, C]. */
  readonly labeled: Tensor
  /** Its pseudo-labels of the weak views, and the same mixed as the strong views are. */
  readonly labels: PseudoLabels
  readonly mixedLabels: PseudoLabels
  /** Logits of the mixed strong views, [N, H, W, C]. */
  readonly strong: Tensor
}

/** Within the trace: what is in a box of each sample comes from another one of the batch. */
type Mix = (x: Tensor) => Tensor

const mixWithin =
  (box: Tensor, index: Tensor): Mix =>
  (x) =>
    cutmix(x, take(x, index), box)

/** Two passes of a member in training mode: labeled and weak views together, then the strong views. */
function predict(
  { kind, model }: CoTrained,
  { batch, labeled, unlabeled, size }: MethodContext,
  index: Tensor,
  mix: Mix,
): Predictions {
  const [normalize, prefix] = kind === 'dct' ? [normalizeCoefficients, 'dct'] : [normalizeImage, 'img']
  const input = (field: string): Tensor => normalize(batch(`${prefix}_${field}`))
  const mixInput = kind === 'dct' ? mixWithin(batch('cutmix_box_dct'), index) : mix
  const mode = { training: true }
  const low = lowLogits(model, concat([input('x'), input('u_w')], 0), mode)
  const strong = lowLogits(model, mixInput(input('u_s')), mode)
  const labels = scoped('pseudo-labels', () => pseudoLabels(slice(low, 0, labeled, unlabeled), size))
  return {
    labeled: upsample(slice(low, 0, 0, labeled), size),
    labels,
    mixedLabels: { confidence: mix(labels.confidence), label: mix(labels.label) },
    strong: upsample(strong, size),
  }
}

/**
 * What decides whether a teacher's pixel counts for a student: the confidence; in the published code of three members, for
 * the third one taught by the second, the class index, which leaves out class 0 wherever the threshold is above 0.
 */
function gateOf({ confidence, label }: PseudoLabels, student: number, teacher: number, members: number): Tensor {
  const hasPublishedFlaw = members === 3 && student === 2 && teacher === 1
  return hasPublishedFlaw ? scale(label, 1) : confidence
}

/** Losses of all pairs, and what is shown of them. */
function coTrainingLosses(
  context: MethodContext<CoTrainingSettings>,
  members: readonly CoTrained[],
  index: Tensor,
): { readonly total: Tensor; readonly metrics: Tensors } {
  const { settings, batch } = context
  const { criterion, ignore_index: ignoreIndex, conf_thresh: threshold, unlabeled_weight: weight = 1 } = settings
  const mix = mixWithin(batch('cutmix_box'), index)
  const ignore = batch('ignore_mask')
  const mixedIgnore = mix(ignore)
  const predictions = members.map((member) => predict(member, context, index, mix))
  const metrics: Record<string, Tensor> = {}
  const confidence = { threshold, mode: 'pixelwise', empty: 'zero' } as const
  const totals = members.map((member, student) => {
    const own = predictions[student]
    if (!own) throw new Error('unreachable: each member predicts')
    const lossX = scoped('labeled', () => supervisedLoss(own.labeled, batch('mask_x'), criterion, ignoreIndex))
    const fromOthers = members.flatMap(({ name }, teacher): Tensor[] => {
      const labels = predictions[teacher]?.mixedLabels
      if (teacher === student || !labels) return []
      const gate = gateOf(labels, student, teacher, members.length)
      const loss = scoped('co-training', () =>
        confidenceWeightedLoss(crossEntropy(own.strong, labels.label), gate, mixedIgnore, confidence),
      )
      metrics[pairName(member.name, name)] = loss
      return [loss]
    })
    const lossU = scale(fromOthers.reduce(add), 1 / fromOthers.length)
    metrics[labeledName(member.name)] = lossX
    metrics[unlabeledName(member.name)] = lossU
    metrics[ratioName(member.name)] = confidentRatio(own.labels.confidence, ignore, threshold, { empty: 'zero' })
    return add(lossX, scale(lossU, weight))
  })
  const agreeing = agreement(
    predictions.map(({ labels }) => labels),
    ignore,
    threshold,
  )
  return { total: scale(totals.reduce(add), 1 / members.length), metrics: { ...metrics, ...agreeing } }
}

const labeledName = (name: string): string => `loss_x_${name}`
const unlabeledName = (name: string): string => `loss_u_${name}`
const pairName = (student: string, teacher: string): string => `loss_u_${student}_from_${teacher}`
const ratioName = (name: string): string => `mask_ratio_${name}`

const colors = ['blue', 'amber', 'red', 'green'] as const

function metricsOf(names: readonly string[]): MetricSpec[] {
  const share = 1 / names.length
  const ofMembers = names.flatMap((name, i): MetricSpec[] => {
    const color = colors[i % colors.length] ?? 'blue'
    const curve = (chart: 'loss' | 'mask', label: string) => ({ chart, label, color })
    return [
      {
        name: labeledName(name),
        short: `x ${name}`,
        curve: curve('loss', `labeled, ${name}`),
        tensorboard: [['Loss x', share]],
      },
      {
        name: unlabeledName(name),
        short: `u ${name}`,
        curve: { ...curve('loss', `unlabeled, ${name}`), dashed: true },
        tensorboard: [['Loss s', share]],
      },
      ...names.filter((teacher) => teacher !== name).map((teacher): MetricSpec => ({ name: pairName(name, teacher) })),
      {
        name: ratioName(name),
        curve: curve('mask', name),
        tensorboard: [['Mask ratio', share]],
      },
    ]
  })
  const agreeing: MetricSpec[] = [
    { name: 'agreement_pairs', tensorboard: [['Agreement pairs', 1]] },
    ...(names.length > 2 ? [{ name: 'agreement_all', tensorboard: [['Agreement all', 1]] } as const] : []),
  ]
  return [...ofMembers, ...agreeing]
}

/**
 * Diverse Co-training (arXiv 2308.09281): networks of different kinds, on images and on their DCT coefficients, are trained
 * together, each by the pseudo-labels of all others. Each is validated alone; the best of them is the result.
 */
export const coTraining: Method<typeof keys> = {
  name: 'co-training',
  description: 'networks of different kinds that label unlabeled images for each other (arXiv 2308.09281)',
  keys,
  layout: layoutOf,
  models: (settings) => membersOf(settings).map((member) => specOf(member, settings.nclass)),
  pretrained: (settings) => membersOf(settings).map(({ pretrained }) => pretrained),
  check({ batch_size: images }, fail) {
    if (images < 2) {
      throw fail(
        'the strong view of one image gives the batch norm of a pooled map one value per channel: use at least 2',
      )
    }
  },
  create(context) {
    const { settings, unlabeled } = context
    const { nclass } = settings as CoTrainingSettings & Pick<ModelChoice, 'nclass'>
    const members = membersOf(settings).map((member, i): CoTrained => {
      const { name, kind } = member
      return { name, kind, model: context.model(i, name, specOf(member, nclass)) }
    })
    const models = members.map(({ model }) => model)
    return {
      trained: models,
      deployed: members.map(({ name, model }) => ({ name, model })),
      rivals: true,
      inputs: { index: spec([unlabeled], 'u32') },
      metrics: metricsOf(members.map(({ name }) => name)),
      losses: (inputs) => coTrainingLosses(context, members, get(inputs, 'index')),
      draw: ({ batchIndex }) => ({
        index: new Random(settings.seed, batchIndex, PURPOSE.batchOrder).permutation(unlabeled),
      }),
      prepare: (_, { index = [] }) => ({ inputs: { index: Uint32Array.from(index) } }),
    }
  },
}
