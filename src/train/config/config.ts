import { readFileSync, statSync } from 'node:fs'
import { z } from 'zod'
import { architectures, backbones, chooseModel, modelKeys, stages } from '../../models/index.js'
import { knownClasses, parseColor, type Rgb } from '../data/classes.js'
import { UserError } from '../error.js'
import { parseYaml } from './yaml.js'

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

const prev = z.strictObject({
  /** Previous models kept; the oldest leaves first. */
  list_max_len: count.default(8),
  /** At most so many of them are drawn for a step. */
  model_num: count.default(3),
  random_select: z.boolean().default(true),
  conf_thresh: fraction.default(0.9),
  /** No model is kept before this epoch. */
  base_only_epoch: z.int().min(0).default(0),
})

const byte = z.int().min(0).max(255)
const hexColor = /^#[0-9a-f]{6}$/i

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

/** A pair of folders with images and labels, in place of a list. */
export type Folders = z.infer<typeof folders>

const source = z.union([z.string().min(1), folders], {
  error: 'expected the path of a list, or folders {images, labels}',
})

const schema = z.strictObject({
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
  checkpoint: z.array(z.enum(stages)).default([]),
  prev: prev.prefault({}),
  /** Widths and depths, in place of those of the backbone. The reference configurations name the architecture here. */
  model: z
    .preprocess((value) => (typeof value === 'string' && architectures.has(value) ? {} : value), modelKeys)
    .prefault({}),
  backbone: z.enum(backbones).default('resnet50'),
  replace_stride_with_dilation: z.tuple([z.boolean(), z.boolean(), z.boolean()]).default([false, false, true]),
  dilations: z.tuple([count, count, count]).default([6, 12, 18]),
  pretrained: z.string().min(1).optional(),
  method: z.enum(['supervised', 'unimatch', 'prevmatch']).default('prevmatch'),
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

type Parsed = z.infer<typeof schema>

/** A checked configuration; keys as in the YAML files, see there for defaults. */
export type Config = Omit<Parsed, 'classes' | 'multi_grid'> & {
  nclass: number
  class_names: string[]
  reduce_zero_label: boolean
  ignore_index: number
  eval_mode: 'original' | 'sliding_window'
}

const MAX_BYTES = 2 ** 20
const MAX_COMPARED = 100

/** Keys of the object schema at `path`, or null where there is no object. */
function keysAt(path: readonly string[]): string[] | null {
  let at: unknown = schema
  for (const key of path) {
    const shape = objectShape(at)
    if (!shape || !Object.hasOwn(shape, key)) return null
    at = shape[key]
  }
  const shape = objectShape(at)
  return shape && Object.keys(shape)
}

/** Fields of an object schema beneath its wrappers (default, optional, preprocess). */
function objectShape(type: unknown): Record<string, unknown> | null {
  let at = type
  for (;;) {
    if (at instanceof z.ZodObject) return at.shape
    if (at instanceof z.ZodPipe) at = at.def.out
    else if (at instanceof z.ZodUnion) at = at.def.options.find((option) => option instanceof z.ZodObject)
    else if (at instanceof z.ZodPrefault || at instanceof z.ZodDefault || at instanceof z.ZodOptional)
      at = at.def.innerType
    else return null
  }
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}

/** All keys of the schema with dots between the levels. */
function dottedKeys(path: readonly string[] = []): string[] {
  return (keysAt(path) ?? []).flatMap((key) => [[...path, key].join('.'), ...dottedKeys([...path, key])])
}

function unknownKey(path: readonly string[], origin: string): UserError {
  const name = path.join('.')
  // Comparing takes time by the product of the lengths.
  const [compared, lastOfName] = [name, path.at(-1) ?? name].map((text) => text.slice(0, MAX_COMPARED)) as [
    string,
    string,
  ]
  const distance = (candidate: string) => {
    const last = candidate.split('.').at(-1) ?? candidate
    return Math.min(editDistance(compared, candidate), editDistance(lastOfName, last) + 0.5)
  }
  const nearest = dottedKeys()
    .map((key) => ({ key, distance: distance(key) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ key }) => key)
  return new UserError(`${origin}: unknown key '${name}'; the nearest valid ones are ${nearest.join(', ')}`)
}

function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? 'nothing')
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

type Issue = z.core.$ZodIssue

/** Names the source of the value at a dotted key: the file, or an option. */
type Origin = (key: string) => string

/** The fault within the alternative that was meant: the one whose kind of value was given. */
function deepest(issue: Issue | undefined, path: PropertyKey[]): Issue | undefined {
  if (!issue) return undefined
  const at = [...path, ...issue.path]
  if (issue.code !== 'invalid_union') return { ...issue, path: at }
  const meant = issue.errors.find(([first]) => first && (first.path.length > 0 || first.code !== 'invalid_type'))
  if (meant) return deepest(meant[0], at)
  return { ...issue, path: at }
}

/** One line for the first fault that zod found. */
function explain(error: z.ZodError, origin: Origin): UserError {
  const issue = deepest(error.issues[0], [])
  if (!issue) return new UserError(`${origin('')}: invalid configuration`)
  const path = issue.path.map(String)
  const key = path.join('.')
  if (issue.code === 'unrecognized_keys') return unknownKey([...path, issue.keys[0] ?? ''], origin(key))
  const expected = issue.message.replace(/^[^:]*: (?=expected)/, '').replace(/, received .*$/, '')
  const found = issue.input === undefined ? 'is missing' : `is ${show(issue.input)}`
  return new UserError(`${origin(key)}: '${key}' ${found}, ${expected.slice(0, 1).toLowerCase()}${expected.slice(1)}`)
}

/** Number and names of the classes, each of which may follow from the other or from the name of the data set. */
function resolveClasses(config: Parsed, fail: (what: string) => UserError): { nclass: number; class_names: string[] } {
  const { dataset, class_names: names, classes } = config
  if (names && classes && names.join('\n') !== classes.join('\n')) {
    throw fail("'classes' and 'class_names' are two words for the same thing: leave one of them out")
  }
  const given = names ?? classes
  const key = names ? 'class_names' : 'classes'
  const known = knownClasses(dataset)?.names
  const nclass = config.nclass ?? given?.length ?? known?.length
  if (nclass === undefined) throw fail("'nclass' is missing: give it, or the names of the classes as 'classes'")
  if (nclass < 2 || nclass > 255) throw fail(`'${key}' has ${nclass} names: between 2 and 255 classes are possible`)
  if (given && given.length !== nclass) {
    throw fail(`'${key}' has ${given.length} names, but 'nclass' is ${nclass}: give one for each class`)
  }
  const fallback = known?.length === nclass ? known : Array.from({ length: nclass }, (_, i) => String(i))
  return { nclass, class_names: given ?? [...fallback] }
}

const hex = (rgb: Rgb): string => `#${rgb.map((channel) => channel.toString(16).padStart(2, '0')).join('')}`

function checkPalette(palette: readonly Rgb[], nclass: number, fail: (what: string) => UserError): void {
  if (palette.length !== nclass) {
    throw fail(`'palette' has ${palette.length} colours, but there are ${nclass} classes: give one for each class`)
  }
  const shown = palette.map(hex)
  const twice = shown.findIndex((one, i) => shown.indexOf(one) < i)
  if (twice >= 0) {
    const first = shown.indexOf(shown[twice] ?? '')
    throw fail(`'palette' gives the classes ${first} and ${twice} the same colour ${shown[twice]}: change one of them`)
  }
}

function checkLabelMap(
  map: Readonly<Record<string, number>>,
  nclass: number,
  ignore: number,
  fail: (what: string) => UserError,
): void {
  for (const [key, label] of Object.entries(map)) {
    if (!hexColor.test(key) && !(/^\d{1,5}$/.test(key) && Number(key) <= 65535)) {
      throw fail(`'label_map' has the key ${show(key)}: write a value of 0 to 65535, or a colour as '#rrggbb'`)
    }
    if (label >= nclass && label !== ignore) {
      throw fail(
        `'label_map' turns ${key} into ${label}, but the classes are 0 to ${nclass - 1} and ${ignore} is ignored`,
      )
    }
  }
}

/** Rules that concern more than one key. */
function checkTogether({ classes, multi_grid, ...config }: Parsed, origin: string): Config {
  const fail = (what: string) => new UserError(`${origin}: ${what}`)
  const { nclass, class_names } = resolveClasses({ ...config, classes }, fail)
  const { criterion, palette, label_map: labelMap } = config
  const fromCriterion = criterion.kwargs.ignore_index
  const ignore = config.ignore_index ?? fromCriterion ?? 255
  if (fromCriterion !== undefined && fromCriterion !== ignore) {
    throw fail(`'ignore_index' is ${ignore}, but 'criterion.kwargs.ignore_index' is ${fromCriterion}: make them equal`)
  }
  if (ignore < nclass) {
    throw fail(`'ignore_index' is ${ignore}, which is one of the ${nclass} classes: choose one from ${nclass} to 255`)
  }
  if (config.model.nclass !== undefined && config.model.nclass !== nclass) {
    throw fail(`'model.nclass' is ${config.model.nclass}, but 'nclass' is ${nclass}: leave one of them out`)
  }
  try {
    chooseModel({ ...config, nclass })
  } catch (error) {
    throw fail(error instanceof Error ? error.message : String(error))
  }
  if (palette) checkPalette(palette, nclass, fail)
  if (labelMap) checkLabelMap(labelMap, nclass, ignore, fail)
  if (labelMap && config.reduce_zero_label) {
    throw fail("'label_map' and 'reduce_zero_label' exclude each other: write 0 into the label_map, too")
  }
  const reduce_zero_label = config.reduce_zero_label ?? (config.dataset === 'ade20k' && !labelMap)
  if (criterion.name === 'OHEM') {
    for (const key of ['thresh', 'min_kept'] as const) {
      if (criterion.kwargs[key] === undefined) throw fail(`'criterion.kwargs.${key}' is missing: OHEM needs it`)
    }
  }
  const eval_mode = config.eval_mode ?? (config.dataset === 'cityscapes' ? 'sliding_window' : 'original')
  return { ...config, nclass, class_names, reduce_zero_label, ignore_index: ignore, eval_mode }
}

/**
 * Checks a configuration that is already an object, and fills in the defaults.
 * @param origin names the source in error messages
 * @throws UserError naming the key, what was found and what is expected
 */
export function parseConfig(value: unknown, origin: string | Origin): Config {
  const name = typeof origin === 'string' ? () => origin : origin
  const result = schema.safeParse(value, { reportInput: true })
  if (!result.success) throw explain(result.error, name)
  return checkTogether(result.data, name(''))
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Applies one `key.of.a.level=value` in place. */
function applyOverride(root: Record<string, unknown>, override: string): void {
  const equals = override.indexOf('=')
  if (equals < 1) throw new UserError(`--set ${override}: write it as key=value, for example --set lr=0.01`)
  const path = override.slice(0, equals).trim().split('.')
  const key = path.at(-1) ?? ''
  const parents = path.slice(0, -1)
  if (!keysAt(parents)?.includes(key)) throw unknownKey(path, '--set')
  let at = root
  for (const parent of parents) {
    const next = at[parent]
    if (isRecord(next)) at = next
    else {
      const created = {}
      at[parent] = created
      at = created
    }
  }
  at[key] = parseYaml(override.slice(equals + 1), `--set ${override}`)
}

/**
 * Reads a YAML configuration.
 * @param overrides texts `key=value` or `section.key=value` whose values are YAML
 * @throws UserError naming the file or option, the key, what was found and what is expected
 */
export function loadConfig(path: string, overrides: readonly string[] = []): Config {
  let text: string
  try {
    const stat = statSync(path)
    if (!stat.isFile()) throw new UserError(`${path} is not a file`)
    if (stat.size > MAX_BYTES) throw new UserError(`${path} is larger than 1 MiB: not a configuration`)
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof UserError) throw error
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    const what = error instanceof Error ? error.message : String(error)
    throw new UserError(missing ? `there is no configuration ${path}: check --config` : `cannot read ${path}: ${what}`)
  }
  const root = parseYaml(text, path) ?? {}
  if (!isRecord(root))
    throw new UserError(`${path} is not a configuration: it holds ${show(root)} where keys are expected`)
  return withOverrides(root, overrides, path)
}

/**
 * Checks a configuration that is already an object, after changing some of its keys.
 * @param overrides texts `key=value` or `section.key=value` whose values are YAML
 * @param origin names the object in error messages
 * @throws UserError naming the object or option, the key, what was found and what is expected
 */
export function withOverrides(
  given: Readonly<Record<string, unknown>>,
  overrides: readonly string[],
  origin: string,
): Config {
  const root = structuredClone(given)
  for (const override of overrides) applyOverride(root, override)
  const optionFor = (key: string) =>
    overrides.findLast((override) => `${key}.`.startsWith(`${override.split('=', 1)[0]?.trim()}.`))
  return parseConfig(root, (key) => {
    const option = optionFor(key)
    return option ? `--set ${option}` : origin
  })
}
