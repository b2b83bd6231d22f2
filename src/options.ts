import { InvalidArgumentError, Option } from 'commander'
import { parseBytes } from './train/config/bytes.js'
import { parseScales } from './train/evaluation/inference.js'
import { methods } from './train/methods/index.js'

// Options that several commands have. Each call makes a new one.

/** Reads a whole number between two bounds, both included. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= least && value <= most) return value
    const bound = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
    throw new InvalidArgumentError(`expects a whole number ${bound}.`)
  }
}

/** Reads `HEIGHTxWIDTH`, or one number for a square. */
export function extents(text: string): [height: number, width: number] {
  const [, height, width = height] = /^(\d{1,5})(?:x(\d{1,5}))?$/.exec(text) ?? []
  if (Number(height) > 0 && Number(width) > 0) return [Number(height), Number(width)]
  throw new InvalidArgumentError('expects HEIGHTxWIDTH, such as 512x1024.')
}

function scales(text: string): number[] {
  const parsed = parseScales(text)
  if (!parsed) throw new InvalidArgumentError('expects numbers from 0.1 to 4, such as 0.75,1,1.25.')
  return parsed
}

/** @param use what it is for, where it may be left out; else the command cannot do without */
export function configOption(use?: string): Option {
  return new Option('--config <file>', use ?? 'YAML configuration, see configs/').makeOptionMandatory(use === undefined)
}

export const setOption = (file = 'the configuration'): Option =>
  new Option('--set <key=value>', `changes a key of ${file}; may be repeated`).argParser(
    (text: string, earlier: readonly string[] = []) => [...earlier, text],
  )

/** Lists in place of those of the configuration. */
export const listOptions = {
  labeled: (): Option =>
    new Option('--labeled-id-path <list>', 'list of lines `image label`, in place of the one in the configuration'),
  unlabeled: (): Option =>
    new Option('--unlabeled-id-path <list>', 'list of images, one per line; labels in it are not read'),
  validation: (): Option =>
    new Option('--val-id-path <list>', 'list of lines `image label` to evaluate on, in place of the configured one'),
} as const

export const methodOption = (): Option =>
  new Option('--method <name>', 'how to train, in place of the method of the configuration').choices(
    methods().map(({ name }) => name),
  )

export const seedOption = (seeded = 'everything random'): Option =>
  new Option('--seed <number>', `seed of ${seeded}`).argParser(wholeNumber(0))

export const gpuOption = (more = ''): Option =>
  new Option('--gpu <name>', `part of the adapter's name, such as nvidia or llvmpipe${more}`)

/** Methods by name, with commas between; by default all. */
export function methodsOption(chosen?: readonly string[]): Option {
  const known = methods().map(({ name }) => name)
  return new Option('--methods <names>', `methods with commas between, of ${known.join(', ')}; or all`)
    .default(chosen ?? known, chosen ? chosen.join(',') : 'all')
    .argParser((text: string) => {
      if (text === 'all') return known
      const names = text.split(',').map((name) => name.trim())
      const unknown = names.find((name) => !known.includes(name))
      if (unknown === undefined) return [...new Set(names)]
      throw new InvalidArgumentError(`there is no method '${unknown}': choose among ${known.join(', ')}, or all.`)
    })
}

export const memoryOption = (): Option =>
  new Option(
    '--memory <size>',
    'what the training may take of the memory of the device, such as 8GiB: what to compute again, and in how many parts ' +
      'to take a batch, is then chosen so that it fits',
  ).argParser((text: string) => {
    if (parseBytes(text) !== undefined) return text
    throw new InvalidArgumentError('expects a size such as 8GiB, 800MiB, 8GB or 800MB.')
  })

export const ampOptions = (): [Option, Option] => [
  new Option('--amp', 'compute in half precision where the adapter can'),
  new Option('--no-amp', 'compute in float32'),
]

export const noTuneOption = (): Option => new Option('--no-tune', 'do not use measurements of kernels')

export const checkpointOption = (more = ''): Option =>
  new Option('--ckpt-path <file>', `checkpoint, .safetensors or .pth${more}`).makeOptionMandatory()

export const flipOption = (): Option =>
  new Option('--flip', 'average the probabilities with those of the mirrored image')

export const scalesOption = (): Option =>
  new Option('--scales <factors>', 'average the probabilities over sizes of the image, such as 0.75,1,1.25').argParser(
    scales,
  )

export const sizeOption = (use: string): Option => new Option('--size <HxW>', use).argParser(extents)

export const overwriteOption = (what: string): Option => new Option('--overwrite', `replace ${what}`)

/** Parsed options that change the configuration. */
export interface ConfigOptions {
  readonly set?: readonly string[]
  readonly labeledIdPath?: string
  readonly unlabeledIdPath?: string
  readonly valIdPath?: string
  readonly method?: string
  readonly seed?: number
  readonly amp?: boolean
  readonly memory?: string
}

/** What the options change in the configuration, as `loadConfig` takes it: --set first. */
export function overridesOf(options: ConfigOptions): string[] {
  const { set = [], labeledIdPath, unlabeledIdPath, valIdPath, method, seed, amp, memory } = options
  const keys = {
    labeled_id_path: labeledIdPath,
    unlabeled_id_path: unlabeledIdPath,
    val_id_path: valIdPath,
    method,
    seed,
    amp,
    memory,
  }
  // As JSON, so that nothing in a path is read as YAML.
  return [
    ...set,
    ...Object.entries(keys).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${JSON.stringify(value)}`])),
  ]
}
