import { z } from 'zod'
import { architectures, backbones, modelKeys, stages } from '../../models/index.js'
import { hexColor, parseColor } from '../data/classes.js'
import { methodKeys, methods } from '../methods/index.js'
import { updateKeys } from '../trainer/optimizer-settings.js'
import { parseBytes } from './bytes.js'

const count = z.int().min(1)
// The bound that the model sets as well: here, so that what is beyond it is refused under the key that was written.
const dilation = count.max(1000)
const fraction = z.number().min(0).max(1)
const byte = z.int().min(0).max(255)

/** `[r, g, b]` or `"#rrggbb"`. */
const color = z.preprocess(
  (value): unknown => (typeof value === 'string' && hexColor.test(value) ? parseColor(value.slice(1)) : value),
  z
    .tuple([byte, byte, byte], { error: 'expected a colour: [r, g, b] of 0 to 255, or "#rrggbb" in quotes' })
    .readonly()
    .meta({ title: '`[r, g, b]` or `"#rrggbb"`' }),
)

const folders = z.strictObject({
  images: z.string().min(1).describe('Folder of the images, relative to `data_root`.'),
  labels: z.string().min(1).optional().describe('Folder of the labels, likewise; a label has the name of its image.'),
  image_suffix: z.string().default('').describe('What names of images have behind the part that both share.'),
  label_suffix: z.string().default('').describe('What names of labels have behind that part, such as `_mask`.'),
})

const source = z
  .union([z.string().min(1), folders], { error: 'expected the path of a list, or folders {images, labels}' })
  .optional()

const memorySize = 'expected a size such as 8GiB, 800MiB, 8GB or 800MB'

const dataKeys = {
  dataset: z
    .string()
    .min(1)
    .default('custom')
    .describe('Name of the data set: `pascal`, `cityscapes`, `coco` and `ade20k` bring names and colours of classes.'),
  data_root: z.string().min(1).default('.').describe('Folder that the paths in lists are relative to.'),
  labeled_id_path: source.describe('Labeled images: a list file, relative to the working folder, or folders.'),
  unlabeled_id_path: source.describe('Unlabeled images, likewise; labels are not read.'),
  val_id_path: source.describe('Labeled images for the evaluation after each epoch, likewise.'),
  exif_orientation: z
    .enum(['apply', 'stored'])
    .optional()
    .describe(
      'Whether images are turned as their EXIF orientation says, as viewers show them, or masks follow the pixels as they ' +
        'are stored. Default: `apply`, except where only the stored pixels have the sides of the label.',
    ),
  workers: z
    .int()
    .min(1)
    .max(64)
    .optional()
    .describe('Threads that load images. Default: all cores but one, at most eight.'),
  max_unreadable: z
    .int()
    .min(0)
    .default(10)
    .describe('So many images may become unreadable during a training; another is read in place of each.'),
}

const classKeys = {
  nclass: z.int().min(2).max(255).optional().describe('Number of classes. Default: as many as there are names.'),
  class_names: z
    .array(z.string().min(1))
    .optional()
    .describe('Names of the classes. Default: those of the data set where it is known, else the indices.'),
  classes: z.array(z.string().min(1)).optional().describe('The same as `class_names`.'),
  palette: z
    .array(color)
    .optional()
    .describe(
      'A colour for each class: to show it, and to read labels in colours, RGB or with a palette in any order.',
    ),
  label_map: z
    .record(z.string(), byte)
    .optional()
    .describe(
      "Class, or `ignore_index`, of each value that label files hold; a colour is written `'#rrggbb'`. With values, those " +
        'of label files with a palette are its indices.',
    ),
  reduce_zero_label: z
    .boolean()
    .optional()
    .describe(
      'Label files hold 0 for "ignore" and 1 to nclass for the classes. Default: for `ade20k` without a `label_map`.',
    ),
  ignore_index: byte.optional().describe('Label of pixels that count nowhere. Default: 255.'),
}

const criterion = z.strictObject({
  name: z
    .enum(['CELoss', 'OHEM'])
    .default('CELoss')
    .describe('Loss of labeled images: cross-entropy, over all pixels or over the hard ones alone (OHEM).'),
  kwargs: z
    .strictObject({
      ignore_index: byte.optional().describe('The same as the key `ignore_index`.'),
      thresh: fraction
        .optional()
        .describe('OHEM: pixels whose true class has at least this probability are easy. OHEM needs it.'),
      min_kept: z.int().min(0).optional().describe('OHEM: at least so many pixels of a batch count. OHEM needs it.'),
    })
    .prefault({})
    .describe('Settings of the loss.'),
})

const trainingKeys = {
  crop_size: z.int().min(8).max(4096).describe('Side of the square training crops, in pixels.'),
  batch_size: z.int().min(1).max(1024).describe('Labeled images in a step; as many unlabeled ones come on top.'),
  epochs: count.describe(
    'Passes over the unlabeled images, while labeled ones are repeated; without unlabeled images, and with ' +
      '`dual-teacher`, over the labeled ones.',
  ),
  epoch_of: z
    .enum(['labeled', 'unlabeled'])
    .optional()
    .describe(
      'The images of which an epoch is one pass, while the others are repeated or take turns. Default: `labeled` for ' +
        '`dual-teacher`, else `unlabeled`.',
    ),
  lr: z
    .number()
    .gt(0)
    .describe(
      'Learning rate at the start; it falls to 0 as a polynomial of power 0.9, unless `lr_schedule` says else.',
    ),
  lr_multi: z
    .number()
    .gt(0)
    .default(10)
    .describe('Learning rate of everything but the backbone, as a multiple of `lr`.'),
  weight_decay: z
    .number()
    .min(0)
    .optional()
    .describe('Share of each parameter that is added to its gradient; AdamW takes it off by itself. Default: 1e-4.'),
  ...updateKeys,
  criterion: criterion.prefault({}).describe('Loss of labeled images.'),
  seed: z.int().min(0).default(0).describe('Seed of everything random.'),
  amp: z
    .literal([true, false, 'auto'])
    .default(false)
    .describe(
      'Half precision: f16 for activations, their gradients and the working copy of the weights, with a dynamic loss ' +
        'scale. `auto`: on GPUs that have it. An adapter without it computes in f32.',
    ),
  activation_checkpointing: z
    .array(z.enum(stages))
    .optional()
    .describe(
      'Stages whose activations are computed again in the backward pass: less memory, more time, the same results. ' +
        'Default: none, or those that `memory` takes.',
    ),
  micro_batch: count
    .optional()
    .describe(
      'Labeled images, with as many unlabeled ones, whose losses are computed at a time: `batch_size` or a divisor of it. ' +
        'Gradients and metrics are means over these parts of the batch, as where a PyTorch loop divides the loss by its ' +
        'accumulation steps, and one update follows. Less memory, but not the results of the whole batch: batch norm ' +
        'normalises each part by its own statistics and moves the running ones once for each part; each loss is a mean ' +
        'over the pixels that count in a part, and `min_kept` counts in a part; each part has its own draws of dropout ' +
        'and previous models. Default: `batch_size`, or what `memory` takes.',
    ),
  sync_batchnorm: z
    .boolean()
    .optional()
    .describe(
      'With several ranks: whether batch norm takes the statistics of the batches of all of them, which costs two exchanges ' +
        'for each layer and pass; else each rank normalises by its own, and the running statistics of rank 0 are kept. ' +
        'Default: true.',
    ),
  memory: z
    .string({ error: memorySize })
    .refine((text) => parseBytes(text) !== undefined, { error: memorySize })
    .optional()
    .describe(
      "What the training may take of the device's memory, such as `8GiB`, `800MiB`, `8GB` or `800MB`: weights, momentum " +
        'buffers, previous models, the step and the evaluation, as `--dry-run` counts them. Of `activation_checkpointing`, ' +
        'half precision (where `amp` is `auto`) and `micro_batch` it takes what fits, as little as possible and in this ' +
        'order; what is set stays. See [memory.md](memory.md).',
    ),
}

const methodSettings = () => ({
  method: z
    .enum(methods().map(({ name }) => name))
    .default('prevmatch')
    .describe('How unlabeled images are learned from; `supervised` leaves them out.'),
  conf_thresh: fraction.default(0.95).describe('Pseudo-labels need at least this confidence.'),
  // Their schemas check them; their types are the methods' own.
  ...(methodKeys() as Record<never, never>),
})

const networkKeys = {
  backbone: z
    .enum(backbones)
    .optional()
    .describe(
      'Network that computes the features. Default: `resnet50`; where `model` is `segformer`, `mit_b2`; `dpt`, `dinov2-small`.',
    ),
  pretrained: z
    .string()
    .min(1)
    .optional()
    .describe('Weights to start from, safetensors or `.pth`. Default: random ones.'),
  lock_backbone: z
    .boolean()
    .optional()
    .describe(
      'Whether the backbone stays as it is, those of further models too: it computes as in evaluation, and nothing is kept ' +
        'for its gradients or its optimizer. Default: false.',
    ),
  replace_stride_with_dilation: z
    .tuple([z.boolean(), z.boolean(), z.boolean()])
    .default([false, false, true])
    .describe('ResNet: whether layer2, layer3 and layer4 dilate their convolutions instead of halving the size.'),
  dilations: z
    .tuple([dilation, dilation, dilation])
    .default([6, 12, 18])
    .describe('Dilations of the three 3x3 branches of the ASPP.'),
  model: z
    .preprocess((value) => {
      if (typeof value !== 'string') return value
      if (architectures.has(value)) return { architecture: value }
      return backbones.includes(value) ? { backbone: value } : value
    }, modelKeys)
    .prefault({})
    .describe(
      'Widths and depths, in place of those of the backbone; or the name of the architecture, `deeplabv3plus`, ' +
        '`segformer` or `dpt`, or that of a backbone.',
    ),
}

const evaluationKeys = {
  eval_mode: z
    .enum(['original', 'sliding_window'])
    .optional()
    .describe(
      'How images are evaluated: whole, or in windows of `crop_size`. Default: `sliding_window` for `cityscapes`, else ' +
        '`original`.',
    ),
  pad_validation: z
    .boolean()
    .optional()
    .describe(
      'With several ranks: whether the validation counts the images twice that give all ranks equally many, as ' +
        "PyTorch's sampler does; else each image counts once. Default: false.",
    ),
  save_map: z.boolean().default(false).describe('Whether `evaluate` writes its predictions.'),
  log_interval: count
    .optional()
    .describe('Iterations between two lines of the log. Default: about eight lines per epoch.'),
  multi_grid: z
    .literal(false)
    .optional()
    .describe("Of UniMatch's configurations; only false: `model.multi_grid` has the factors."),
  run: z
    .record(z.string(), z.unknown())
    .optional()
    .meta({ title: 'keys' })
    .describe('What the `config.yaml` of a run says of where it ran: versions, adapter, lists. It is not looked at.'),
}

/** The keys by what they concern, in the order of their documentation. */
export const keysBySubject = () => ({
  'Data set': dataKeys,
  'Classes and labels': classKeys,
  Training: trainingKeys,
  Method: methodSettings(),
  Network: networkKeys,
  'Evaluation and log': evaluationKeys,
})

const build = () =>
  z.strictObject({
    ...dataKeys,
    ...classKeys,
    ...trainingKeys,
    ...methodSettings(),
    ...networkKeys,
    ...evaluationKeys,
  })

type Schema = ReturnType<typeof build>
let built: { readonly schema: Schema; readonly methods: number } | undefined

/** The schema of a configuration, with the keys of all methods there are. */
export function configSchema(): Schema {
  const { length } = methods()
  if (built?.methods !== length) built = { schema: build(), methods: length }
  return built.schema
}

/** Names that keys had before, which are still understood. */
export const aliases: Readonly<Record<string, string>> = { checkpoint: 'activation_checkpointing' }

export type Parsed = z.infer<Schema>

/** A checked configuration; keys as in the YAML files, see there for defaults. */
export type Config = Omit<Parsed, 'classes' | 'multi_grid' | 'run'> & {
  backbone: string
  nclass: number
  class_names: string[]
  reduce_zero_label: boolean
  ignore_index: number
  eval_mode: 'original' | 'sliding_window'
}
