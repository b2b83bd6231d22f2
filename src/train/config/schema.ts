import { z } from 'zod'
import { architectures, backbones, modelKeys, stages } from '../../models/index.js'
import { hexColor, parseColor } from '../data/classes.js'
import { methodKeys, methods } from '../methods/index.js'

const count = z.int().min(1)
const fraction = z.number().min(0).max(1)

const criterion = z.strictObject({
  name: z.enum(['CELoss', 'OHEM']).default('CELoss'),
  kwargs: z
    .strictObject({
      ignore_index: z.int().min(0).max(255).optional(),
      /** OHEM: pixels whose true class has at least this probability are easy. */
      thresh: fraction.optional(),
      /** OHEM: at least so many pixels of a batch are kept. */
      min_kept: z.int().min(0).optional(),
    })
    .prefault({}),
})

const byte = z.int().min(0).max(255)

/** `[r, g, b]` or `"#rrggbb"`. */
const color = z.preprocess(
  (value): unknown => (typeof value === 'string' && hexColor.test(value) ? parseColor(value.slice(1)) : value),
  z.tuple([byte, byte, byte], { error: 'expected a colour: [r, g, b] of 0 to 255, or "#rrggbb"' }).readonly(),
)

/** Images and labels in two folders, paired by their names without ending. */
const folders = z.strictObject({
  /** Relative to `data_root`, like `labels`. */
  images: z.string().min(1),
  labels: z.string().min(1).optional(),
  /** What the names of the images, and of the labels, have behind the part that both share. */
  image_suffix: z.string().default(''),
  label_suffix: z.string().default(''),
})

const source = z.union([z.string().min(1), folders], {
  error: 'expected the path of a list, or folders {images, labels}',
})

const build = () =>
  z.strictObject({
    dataset: z.string().min(1).default('custom'),
    /** By default as many as there are names of classes. */
    nclass: z.int().min(2).max(255).optional(),
    /** Side of the square training crops, in pixels. */
    crop_size: z.int().min(8).max(4096),
    /** Folder that the paths in the lists are relative to. */
    data_root: z.string().min(1).default('.'),
    epochs: count,
    /** Labeled pictures per step; as many unlabeled ones come on top. */
    batch_size: z.int().min(1).max(1024),
    lr: z.number().gt(0),
    /** Learning rate of everything but the backbone, as a multiple of `lr`. */
    lr_multi: z.number().gt(0).default(10),
    criterion: criterion.prefault({}),
    /** Pseudo-labels need at least this confidence. */
    conf_thresh: fraction.default(0.95),
    /**
     * Half precision: f16 for activations, their gradients and the working copy of the weights, with a dynamic loss scale.
     * `auto`: on GPUs that have it. An adapter without it computes in f32.
     */
    amp: z.literal([true, false, 'auto']).default(false),
    /** Stages whose activations are computed again in the backward pass: less memory, more time, the same results. */
    activation_checkpointing: z.array(z.enum(stages)).default([]),
    // Their schemas check them; their types are the methods' own.
    ...(methodKeys() as Record<never, never>),
    /** Widths and depths, in place of those of the backbone. The reference configurations name the architecture here. */
    model: z
      .preprocess((value) => (typeof value === 'string' && architectures.has(value) ? {} : value), modelKeys)
      .prefault({}),
    backbone: z.enum(backbones).default('resnet50'),
    replace_stride_with_dilation: z.tuple([z.boolean(), z.boolean(), z.boolean()]).default([false, false, true]),
    dilations: z.tuple([count, count, count]).default([6, 12, 18]),
    pretrained: z.string().min(1).optional(),
    method: z.enum(methods().map(({ name }) => name)).default('prevmatch'),
    seed: z.int().min(0).default(0),
    /** Threads that load pictures; by default one core is left free, and at most eight are used. */
    workers: z.int().min(1).max(64).optional(),
    /** So many images may become unreadable during a training; each is left out, and another read in its place. */
    max_unreadable: z.int().min(0).default(10),
    /** Each a list file, relative to the working folder, or folders below `data_root`. */
    labeled_id_path: source.optional(),
    unlabeled_id_path: source.optional(),
    val_id_path: source.optional(),
    /** Label of pixels that count nowhere. */
    ignore_index: byte.optional(),
    /** By default the names of the data set where it is known, else the indices. */
    class_names: z.array(z.string().min(1)).optional(),
    /** The same as `class_names`. */
    classes: z.array(z.string().min(1)).optional(),
    /** A colour for each class: to show it, and to read labels that are RGB pictures. */
    palette: z.array(color).optional(),
    /** Class, or `ignore_index`, of each value that label files hold; a colour is written '#rrggbb'. */
    label_map: z.record(z.string(), byte).optional(),
    /** Label files hold 0 for "ignore" and 1 to nclass for the classes. Default: for `ade20k` without a `label_map`. */
    reduce_zero_label: z.boolean().optional(),
    /** Of UniMatch's configurations; only false is available. */
    multi_grid: z.literal(false).optional(),
    eval_mode: z.enum(['original', 'sliding_window']).optional(),
    save_map: z.boolean().default(false),
    /** Iterations between two lines of the log; by default about eight lines per epoch. */
    log_interval: count.optional(),
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
export type Config = Omit<Parsed, 'classes' | 'multi_grid'> & {
  nclass: number
  class_names: string[]
  reduce_zero_label: boolean
  ignore_index: number
  eval_mode: 'original' | 'sliding_window'
}
