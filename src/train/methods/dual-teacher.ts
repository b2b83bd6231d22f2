import { z } from 'zod'
import { assign, read, scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import type { Program } from '../../engine/program.js'
import { spec } from '../../engine/shape.js'
import type { Variable } from '../../engine/store.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation, toGray } from '../../kernels/color.js'
import { normalizeImage } from '../../kernels/images.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, scale, sum } from '../../kernels/pointwise.js'
import type { ModelSpec } from '../../models/index.js'
import { logits, lowLogits, parametersOf, type SegmentationModel, upsample } from '../../models/segmentation.js'
import { boxMap } from '../data/augment.js'
import type { BatchLayout, Geometry } from '../data/batch.js'
import { drawCutMix } from '../data/cutmix-view.js'
import { PURPOSE, Random } from '../random.js'
import {
  classMask,
  classMixLoss,
  cutMixLabels,
  cutMixLoss,
  mixedByMask,
  quantizedConfidence,
  strongViewLoss,
  type WeightedLoss,
} from './dual-teacher-losses.js'
import { type PseudoLabels, pseudoLabels, supervisedLoss } from './losses.js'
import { meanTeacherDecay, updateMeanTeacher } from './mean-teacher.js'
import { type CompileProgram, type Draws, get, type Method, type MethodContext, type MetricSpec } from './method.js'
import { resizeFactors } from './resize-factors.js'
import { labeledMetric, labeledStream } from './supervised.js'

const keys = {
  dual_teacher: z
    .strictObject({
      ema_decay: z
        .number()
        .min(0)
        .lt(1)
        .default(0.99)
        .describe(
          'At most this share of itself a teacher keeps in a step; in step i of an epoch, from 0, it is i/(i+1).',
        ),
      consistency_weight: z
        .number()
        .min(0)
        .default(0.2)
        .describe('Weight of the loss of the strong view against the pseudo-labels of the weak one.'),
      resize: z
        .strictObject({
          short_side: z.int().min(1).describe('Length of the shorter side at a factor of 1, in pixels.'),
          ratio: resizeFactors,
        })
        .optional()
        .describe(
          'How images are resized before they are cropped. Default: as for the other methods, to half to double.',
        ),
      max_class_share: z
        .number()
        .gt(0)
        .max(1)
        .optional()
        .describe(
          'Crops of labeled images in which one class has this share of the annotated pixels are drawn anew, 10 times at most.',
        ),
      photometric_distortion: z
        .boolean()
        .optional()
        .describe(
          'Whether brightness, contrast, saturation and hue of all images change at random. Default: they do not.',
        ),
    })
    .prefault({})
    .describe('Temporary teachers of Dual Teacher.'),
}

type DualTeacherSettings = z.infer<typeof keys.dual_teacher>

/** Of padding: about the mean colour of ImageNet, which is 0 once it is normalised. */
const PADDING = [124, 116, 104] as const

function layoutOf({ resize, max_class_share, photometric_distortion }: DualTeacherSettings): BatchLayout {
  const geometry: Geometry | undefined = resize && {
    resize: { shortSide: resize.short_side, scale: resize.ratio },
    flipsFirst: true,
    padding: PADDING,
  }
  const image = { view: photometric_distortion ? 'distorted' : 'weak' } as const
  const labeled: Geometry = { ...geometry, ...(max_class_share !== undefined && { maxClassShare: max_class_share }) }
  return [
    { ...labeledStream, geometry: labeled, fields: { img_x: image, mask_x: { view: 'label' } } },
    {
      name: 'unlabeled',
      split: 'unlabeled',
      purpose: { order: PURPOSE.unlabeledOrder, sample: PURPOSE.unlabeledSample, batch: PURPOSE.cutMixView },
      ...(geometry && { geometry }),
      fields: { img_u: image, img_u_aug: { view: 'cutmix', of: 'img_u', epochs: 'even' } },
    },
  ]
}

const metrics: readonly MetricSpec[] = [
  { ...labeledMetric, curve: { chart: 'loss', label: 'labeled', color: 'blue' } },
  {
    name: 'loss_mix',
    short: 'mix',
    curve: { chart: 'loss', label: 'mixed', color: 'amber' },
    tensorboard: [['Loss mix', 1]],
  },
  {
    name: 'loss_ic',
    short: 'ic',
    curve: { chart: 'loss', label: 'strong view', color: 'red' },
    tensorboard: [['Loss ic', 1]],
  },
  {
    name: 'ic_ratio',
    curve: { chart: 'mask', label: 'strong view', color: 'red' },
    tensorboard: [['Mask ratio', 1]],
  },
  {
    name: 'mix_weight',
    curve: { chart: 'mask', label: 'mixed', color: 'amber' },
    tensorboard: [['Mix weight', 1]],
  },
]

/** Which teacher a step has, and how it mixes images. */
const phases = ['teacher1 cutmix', 'teacher2 classmix'] as const
const [cutMixPhase, classMixPhase] = phases

/** Teachers and ways of mixing change with every epoch. */
const phaseOf = (epoch: number): string => (epoch % 2 === 0 ? cutMixPhase : classMixPhase)

/** The same architecture without stochastic depth, which teachers do without. */
const withoutDropPath = ({ architecture, config }: SegmentationModel): ModelSpec => ({
  architecture,
  config: 'drop_path_rate' in config ? { ...config, drop_path_rate: 0 } : config,
})

const jitters = [adjustBrightness, adjustContrast, adjustSaturation, adjustHue]

/** The strong view of the unlabeled images: colours of normalised images change, with one draw for all of them. */
class StrongView {
  /** f32 [unlabeled, H, W, 3] */
  readonly images: Variable
  private programs:
    | { begin: Program; jitters: readonly Program<{ factor: ReturnType<typeof spec> }>[]; gray: Program }
    | undefined

  constructor(private readonly context: MethodContext) {
    const { size, unlabeled, workspace } = context
    this.images = workspace.declare('strong view', spec([unlabeled, ...size, 3]))
  }

  /** Programs that follow one another in the drawn order, which differs from step to step. */
  async compile(compile: CompileProgram): Promise<void> {
    const { images, context } = this
    const change = (make: () => Tensor) => {
      assign(images, make())
      return {}
    }
    const begin = await compile('strong view', {}, () => change(() => normalizeImage(context.batch('img_u'))))
    const changes: Program<{ factor: ReturnType<typeof spec> }>[] = []
    for (const jitter of jitters) {
      changes.push(
        await compile(`strong view, ${jitter.name}`, { factor: spec([]) }, ({ factor }) =>
          change(() => jitter(read(images), factor)),
        ),
      )
    }
    const gray = await compile('strong view, toGray', {}, () => change(() => toGray(read(images))))
    this.programs = { begin, jitters: changes, gray }
  }

  draw({ seed }: { readonly seed: number }, batchIndex: number): Draws {
    const random = new Random(seed, batchIndex, PURPOSE.strongView)
    const strong_order = random.permutation(jitters.length)
    const strong_factors = [0, 1, 2].map(() => random.uniform(0.5, 1.5))
    strong_factors.push(random.uniform(-0.25, 0.25))
    return { strong_order, strong_factors, strong_gray_u: [random.uniform()] }
  }

  run({ strong_order: order = [], strong_factors: factors = [], strong_gray_u: gray = [] }: Draws): void {
    this.programs?.begin.run({})
    for (const k of Array.from(order)) this.programs?.jitters[k]?.run({ factor: Float32Array.of(factors[k] ?? 0) })
    if ((gray[0] ?? 1) < Math.fround(0.2)) this.programs?.gray.run({})
  }
}

/** What is mixed of the unlabeled images, and the loss of the student's logits of it. */
interface Mixed {
  readonly view: Tensor
  loss(logits: Tensor): WeightedLoss
}

/**
 * Dual Teacher (Na et al., "Switching Temporary Teachers for Semi-Supervised Semantic Segmentation", NeurIPS 2023): two
 * teachers take turns by epochs, one with CutMix, the other with ClassMix; each follows the student by a moving average that
 * begins anew in every epoch, so that the first step of an epoch makes it the student.
 *
 * As in its code: teachers normalise by the statistics of the batch; an epoch is one pass over the labeled images. The
 * colours of the strong view change after the normalisation, as if 0 to 1 were the range of the values. For CutMix the
 * confidence passes through a byte, so that the threshold 0.95 is 243/255, and is not pasted; all pixels of an image weigh as
 * many as are confident. For ClassMix all pixels of the batch do. The strong view counts where the labeled image at the same
 * place of the batch is annotated. The code also limits the share of a class in crops of unlabeled images, by their
 * annotations, which images without labels do not have: here it does so for labeled ones alone. The teacher looks twice at the same images, which moves its running statistics twice.
 */
export const dualTeacher: Method<typeof keys> = {
  name: 'dual-teacher',
  description: 'two teachers that take turns, with CutMix and ClassMix (Na et al., NeurIPS 2023)',
  keys,
  epochOf: 'labeled',
  wholeBatch: 'images of a whole batch are mixed with one another',
  layout: ({ dual_teacher: own }) => layoutOf(own),
  check({ batch_size: images }, fail) {
    if (images < 2) {
      throw fail('one image gives the batch norm of the pooled map one value per channel: use at least 2')
    }
  },
  create(context) {
    const { settings, size, labeled, unlabeled, workspace, batch } = context
    const { criterion, conf_thresh: threshold, ignore_index: ignoreIndex, seed } = settings
    const { ema_decay: mostDecay, consistency_weight: consistencyWeight } = settings.dual_teacher
    const student = context.model(0, 'model')
    const teachers = [1, 2].map((k) => context.model(k, `teacher${k}`, withoutDropPath(student)))
    const strong = new StrongView(context)
    const classes = student.config.nclass
    const numbers = Float32Array.from({ length: unlabeled }, (_, i) => i)
    const images = workspace.declare('numbers of the images', spec([unlabeled]), numbers)
    const image = (field: string): Tensor => normalizeImage(batch(field))
    const training = { training: true }
    const teacherOf = (phase: string): SegmentationModel => {
      const teacher = teachers[phase === cutMixPhase ? 0 : 1]
      if (!teacher) throw new Error('unreachable: there are two teachers')
      return teacher
    }
    const labelsOf = (phase: string): PseudoLabels =>
      scoped('pseudo-labels', () => pseudoLabels(lowLogits(teacherOf(phase), image('img_u'), training), size))

    const cutMix = ({ label, confidence }: PseudoLabels, source: Tensor, inputs: Record<string, Tensor>): Mixed => {
      const target = cutMixLabels(label, source, get(inputs, 'box'), get(inputs, 'mirrored'))
      const bytes = quantizedConfidence(confidence)
      return { view: image('img_u_aug'), loss: (scores) => cutMixLoss(scores, target, bytes, threshold) }
    }
    const classMix = (labels: PseudoLabels, source: Tensor, priority: Tensor): Mixed => {
      const mask = classMask(labels.label, priority, read(images))
      const mixed = (x: Tensor) => mixedByMask(mask, x, source)
      const target = { label: mixed(labels.label), confidence: mixed(labels.confidence) }
      return { view: mixed(read(strong.images)), loss: (scores) => classMixLoss(scores, target, threshold) }
    }

    return {
      trained: [student],
      deployed: [{ name: 'model', model: student }],
      phases,
      phase: ({ epoch }) => phaseOf(epoch),
      stores: Object.fromEntries(teachers.map(({ store }) => [store.label, store])),
      inputs: {
        decay: spec([]),
        source: spec([unlabeled], 'u32'),
        box: spec([unlabeled, ...size], 'u8'),
        mirrored: spec([unlabeled]),
        priority: spec([unlabeled, classes]),
      },
      metrics,
      losses(inputs, phase) {
        const labels = labelsOf(phase)
        const source = get(inputs, 'source')
        const mixed = scoped('mix', () =>
          phase === cutMixPhase ? cutMix(labels, source, inputs) : classMix(labels, source, get(inputs, 'priority')),
        )
        const low = lowLogits(student, concat([image('img_x'), mixed.view], 0), training)
        const logitsX = upsample(slice(low, 0, 0, labeled), size)
        const logitsMix = upsample(slice(low, 0, labeled, unlabeled), size)
        const again = labelsOf(phase)
        const logitsStrong = logits(student, read(strong.images), training)
        const lossX = scoped('labeled', () => supervisedLoss(logitsX, batch('mask_x'), criterion, ignoreIndex))
        const mix = scoped('mix', () => mixed.loss(logitsMix))
        const consistency = scoped('strong view', () =>
          strongViewLoss(logitsStrong, again, batch('mask_x'), threshold, ignoreIndex),
        )
        return {
          total: add(add(lossX, mix.loss), scale(consistency.loss, consistencyWeight)),
          metrics: {
            loss_x: lossX,
            loss_mix: mix.loss,
            loss_ic: consistency.loss,
            ic_ratio: consistency.ratio,
            mix_weight: scale(sum(mix.weight), 1 / (mix.weight.shape[0] ?? 1)),
          },
        }
      },
      afterUpdate(inputs, _skipped, phase) {
        const teacher = teacherOf(phase)
        // Behind skipped steps, too: else it would not begin anew in an epoch whose first step is one.
        scoped('teacher', () => updateMeanTeacher(parametersOf(teacher), student, get(inputs, 'decay')))
      },
      compile: (compile) => strong.compile(compile),
      draw({ batchIndex, epoch }) {
        const view = strong.draw(settings, batchIndex)
        if (phaseOf(epoch) === cutMixPhase) {
          // Those by which the loader made the view.
          const { sources, boxes, images } = drawCutMix(
            unlabeled,
            size[0],
            new Random(seed, batchIndex, PURPOSE.cutMixView),
          )
          const cut_boxes = boxes.flatMap(({ x, y, w, h }) => [y, y + h, x, x + w])
          return { ...view, cut_perm: sources, cut_boxes, cut_flip: images.map(({ flip }) => Number(flip)) }
        }
        const random = new Random(seed, batchIndex, PURPOSE.classMix)
        const classmix_shuffle = unlabeled === 2 ? [1, 0] : random.permutation(unlabeled)
        const priorities = Array.from({ length: unlabeled }, () => Array.from(random.permutation(classes)))
        return { ...view, classmix_shuffle, class_priority: priorities.flat() }
      },
      prepare({ iteration, epoch, iterationsPerEpoch }, draws) {
        strong.run(draws)
        const { cut_perm, cut_boxes = [], cut_flip = [], classmix_shuffle, class_priority = [] } = draws
        const box = new Uint8Array(unlabeled * size[0] * size[1])
        for (let i = 0; 4 * i < cut_boxes.length; i++) {
          const [top = 0, bottom = 0, left = 0, right = 0] = Array.from(cut_boxes).slice(4 * i, 4 * i + 4)
          const part = box.subarray(i * size[0] * size[1], (i + 1) * size[0] * size[1])
          boxMap({ x: left, y: top, w: right - left, h: bottom - top }, size[1], part)
        }
        const padded = (values: ArrayLike<number>, length: number) =>
          Float32Array.from({ length }, (_, i) => values[i] ?? 0)
        return {
          inputs: {
            decay: Float32Array.of(meanTeacherDecay(iteration - epoch * iterationsPerEpoch, mostDecay)),
            source: Uint32Array.from(cut_perm ?? classmix_shuffle ?? []),
            box,
            mirrored: padded(cut_flip, unlabeled),
            priority: padded(class_priority, unlabeled * classes),
          },
        }
      },
    }
  },
}
