import { readFileSync, statSync } from 'node:fs'
import { parse, YAMLError } from 'yaml'
import { z } from 'zod'
import { UserError } from './error.js'

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

/** Widths and depths, in place of those of the backbone's name. */
const model = z.strictObject({
  stem: z.tuple([count, count, count]).optional(),
  planes: z.tuple([count, count, count, count]).optional(),
  blocks: z.tuple([count, count, count, count]).optional(),
  expansion: count.optional(),
  replace_stride_with_dilation: z.tuple([z.boolean(), z.boolean(), z.boolean()]).optional(),
  dilations: z.tuple([count, count, count]).optional(),
  reduce_channels: count.optional(),
  aspp_channels: count.optional(),
  fuse_channels: count.optional(),
  nclass: count.optional(),
})

const schema = z.strictObject({
  dataset: z.string().min(1).default('custom'),
  nclass: z.int().min(2).max(255),
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
  amp: z.boolean().default(false),
  prev: prev.prefault({}),
  /** The reference configurations say `deeplabv3plus` here, the only model there is. */
  model: z.preprocess((value) => (value === 'deeplabv3plus' ? {} : value), model).prefault({}),
  backbone: z.enum(['resnet50', 'resnet101']).default('resnet50'),
  replace_stride_with_dilation: z.tuple([z.boolean(), z.boolean(), z.boolean()]).default([false, false, true]),
  dilations: z.tuple([count, count, count]).default([6, 12, 18]),
  pretrained: z.string().min(1).optional(),
  method: z.enum(['supervised', 'unimatch', 'prevmatch']).default('prevmatch'),
  seed: z.int().min(0).default(0),
  /** Threads that load pictures; by default one core is left free, and at most four are used. */
  workers: z.int().min(1).max(64).optional(),
  labeled_id_path: z.string().min(1).optional(),
  unlabeled_id_path: z.string().min(1).optional(),
  val_id_path: z.string().min(1).optional(),
  /** Label of pixels that count nowhere. */
  ignore_index: z.int().min(0).max(255).optional(),
  class_names: z.array(z.string()).optional(),
  eval_mode: z.enum(['original', 'sliding_window']).optional(),
  save_map: z.boolean().default(false),
  /** Iterations between two lines of the log; by default about eight lines per epoch. */
  log_interval: count.optional(),
})

type Parsed = z.infer<typeof schema>

/** A checked configuration; keys as in the YAML files, see there for defaults. */
export type Config = Parsed & {
  ignore_index: number
  eval_mode: 'original' | 'sliding_window'
}

const MAX_BYTES = 2 ** 20
const MAX_ALIASES = 20

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
  const distance = (candidate: string) => {
    const last = candidate.split('.').at(-1) ?? candidate
    return Math.min(editDistance(name, candidate), editDistance(path.at(-1) ?? name, last) + 0.5)
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

/** Names the source of the value at a dotted key: the file, or an option. */
type Origin = (key: string) => string

/** One line for the first fault that zod found. */
function explain(error: z.ZodError, origin: Origin): UserError {
  const issue = error.issues[0]
  if (!issue) return new UserError(`${origin('')}: invalid configuration`)
  const path = issue.path.map(String)
  const key = path.join('.')
  if (issue.code === 'unrecognized_keys') return unknownKey([...path, issue.keys[0] ?? ''], origin(key))
  const expected = issue.message.replace(/^[^:]*: (?=expected)/, '').replace(/, received .*$/, '')
  const found = issue.input === undefined ? 'is missing' : `is ${show(issue.input)}`
  return new UserError(`${origin(key)}: '${key}' ${found}, ${expected.slice(0, 1).toLowerCase()}${expected.slice(1)}`)
}

/** Rules that concern more than one key. */
function checkTogether(config: Parsed, origin: string): Config {
  const fail = (what: string) => new UserError(`${origin}: ${what}`)
  const { nclass, criterion } = config
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
  if (config.class_names && config.class_names.length !== nclass) {
    throw fail(
      `'class_names' has ${config.class_names.length} names, but 'nclass' is ${nclass}: give one for each class`,
    )
  }
  if (criterion.name === 'OHEM') {
    for (const key of ['thresh', 'min_kept'] as const) {
      if (criterion.kwargs[key] === undefined) throw fail(`'criterion.kwargs.${key}' is missing: OHEM needs it`)
    }
  }
  const eval_mode = config.eval_mode ?? (config.dataset === 'cityscapes' ? 'sliding_window' : 'original')
  return { ...config, ignore_index: ignore, eval_mode }
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

function parseYaml(text: string, origin: string): unknown {
  try {
    return parse(text, { maxAliasCount: MAX_ALIASES, prettyErrors: true })
  } catch (error) {
    const [first = ''] = String(error instanceof Error ? error.message : error).split('\n')
    if (error instanceof YAMLError) throw new UserError(`${origin} is not valid YAML: ${first.replace(/:$/, '')}`)
    throw new UserError(`${origin} is refused: ${first} (at most ${MAX_ALIASES} uses of an alias are read)`)
  }
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
    if (statSync(path).size > MAX_BYTES) throw new UserError(`${path} is larger than 1 MiB: not a configuration`)
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
  for (const override of overrides) applyOverride(root, override)
  const optionFor = (key: string) =>
    overrides.findLast((override) => `${key}.`.startsWith(`${override.split('=', 1)[0]?.trim()}.`))
  return parseConfig(root, (key) => {
    const option = optionFor(key)
    return option ? `--set ${option}` : path
  })
}
