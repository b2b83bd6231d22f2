import {
  architectureOf,
  architectures,
  defaultArchitecture,
  type InferredModel,
  inferModel,
} from '../../models/index.js'
import { differingKeys } from '../../models/infer.js'
import type { Architecture, SegmentationModel } from '../../models/segmentation.js'
import { loadStateDict, type StateTensor } from '../../models/weights.js'
import { DamagedFileError, reasonOf, UserError } from '../error.js'
import type { ByteSource } from '../io/byte-source.js'
import { isSafetensors, otherKind, START_BYTES } from '../io/file-kinds.js'
import { quoted } from '../io/pickle.js'
import { isPth, parsePth } from '../io/pth.js'
import { type DigestOf, type FileTensor, parseSafetensors, toFloat32 } from '../io/safetensors-format.js'
import { momentumPrefix } from '../trainer/saved-store.js'
import { joinTensors } from './join-tensors.js'
import { type Renamed, rename } from './names.js'

/** Names of further models, of a method's stores and of AdamW's averages in a safetensors file. */
const furtherPrefix = /^(models|stores|exp_avg|exp_avg_sq)\//

/** What a file of weights holds, whichever format it has. */
export interface Checkpoint {
  /** Weights, running statistics and counters under the names of PyTorch's state_dict, without a common prefix. */
  readonly tensors: ReadonlyMap<string, FileTensor>
  /** Momentum buffers by the names of their parameters; none where the file has none that fit the parameters. */
  readonly momentumBuffers: ReadonlyMap<string, FileTensor>
  /** What else a training keeps: further models, stores of its method, averages of gradients, by their names in the file. */
  readonly further: ReadonlyMap<string, FileTensor>
  /** What the file says besides, as JSON by key: `model`, `epoch` (epochs done), `bestMiou` (percent), ... */
  readonly metadata: Readonly<Record<string, string>>
  /** Whether the file carried a checksum, which then holds. */
  readonly verified: boolean
  /** How its names came from those of the file. */
  readonly names: Pick<Renamed<FileTensor>, 'several' | 'nameInFile'>
  /** A line that says under which key, prefix or names the weights were found, where they are not as ours are. */
  readonly note?: string | undefined
}

type Tensors = ReadonlyMap<string, FileTensor>

/**
 * Reads weights: safetensors, or what torch.save wrote (`.pth`, `.pt`). The content decides, not the name.
 *
 * @param digestOf checks the checksum of safetensors, by default in JavaScript
 * @throws UserError naming the source and what is wrong with it, such as a tensor that is not finite
 */
export function parseCheckpoint(source: ByteSource, digestOf?: DigestOf): Checkpoint {
  const { name: origin } = source
  const fail = (what: string): never => {
    throw new UserError(`${origin}: ${what}`)
  }
  const start = source.read(0, START_BYTES)
  const other = otherKind(start)
  if (other !== undefined) throw new DamagedFileError(`${origin} holds no weights: it is ${other}`)
  const pickled = !isSafetensors(start) && (isPth(start) || /\.(pth|pt|ckpt)$/i.test(origin))
  const checkpoint = pickled ? fromPth(source) : fromSafetensors(source, digestOf)
  const { nameInFile } = checkpoint.names
  for (const [key, tensor] of [...checkpoint.tensors, ...checkpoint.momentumBuffers, ...checkpoint.further]) {
    const name = nameInFile(key)
    // A name goes into messages of one line.
    if (/\p{Cc}/u.test(name)) return fail(`a tensor has the name ${quoted(name)}: no model has such names`)
    if (isCounter(key)) {
      const count = countOf(tensor)
      if (!(count >= 0)) return fail(`counter '${name}' is ${count}, where a number of batches is expected`)
    } else if (!allFinite(tensor)) {
      return fail(`tensor '${name}' holds values that are not finite: its training failed`)
    }
  }
  return checkpoint
}

/** Of the batches that a batch norm has seen. Nothing is computed from it. */
const isCounter = (name: string): boolean => name.endsWith('.num_batches_tracked')

function countOf(tensor: FileTensor): number {
  const isHalf = tensor.dtype === 'F16' || tensor.dtype === 'BF16'
  return Number((isHalf ? toFloat32(tensor) : tensor.data)[0] ?? 0)
}

function allFinite(tensor: FileTensor): boolean {
  return !/F/.test(tensor.dtype) || toFloat32(tensor).every(Number.isFinite)
}

const noteOf = (path: string, changes: readonly string[]): string | undefined =>
  changes.length === 0 ? undefined : `${path}: ${changes.join('; ')}`

function fromSafetensors(source: ByteSource, digestOf: DigestOf | undefined): Checkpoint {
  const { tensors: all, metadata, verified } = parseSafetensors(source, digestOf)
  const momentumBuffers = new Map<string, FileTensor>()
  const further = new Map<string, FileTensor>()
  const weights = new Map<string, FileTensor>()
  for (const [name, tensor] of all) {
    if (name.startsWith(momentumPrefix)) momentumBuffers.set(name.slice(momentumPrefix.length), tensor)
    else (furtherPrefix.test(name) ? further : weights).set(name, tensor)
  }
  const { tensors, changes, ...names } = rename(joinTensors(weights, source.name))
  return { tensors, momentumBuffers, further, metadata, verified, names, note: noteOf(source.name, changes) }
}

function fromPth(source: ByteSource): Checkpoint {
  const { state, keys, momentumBuffers, epoch, previousBest } = parsePth(source)
  const { tensors, changes, ...names } = rename(joinTensors(state, source.name))
  const metadata = {
    ...(epoch === undefined ? {} : { epoch: JSON.stringify(epoch + 1) }),
    ...(previousBest === undefined ? {} : { bestMiou: JSON.stringify(previousBest) }),
  }
  const key = keys.length === 0 ? [] : [`weights of the key '${keys.join('.')}'`]
  return {
    tensors,
    momentumBuffers: nameMomentumBuffers(tensors, momentumBuffers),
    further: new Map(),
    metadata,
    verified: false,
    names,
    note: noteOf(source.name, [...key, ...changes]),
  }
}

/** The optimizer numbers its parameters in the order of the state_dict, those of the backbone first. */
function nameMomentumBuffers(
  tensors: Tensors,
  momentumBuffers: ReadonlyMap<number, FileTensor>,
): Map<string, FileTensor> {
  const parameters = [...tensors].filter(([name]) => !/\.(running_mean|running_var|num_batches_tracked)$/.test(name))
  const inBackbone = ([name]: [string, unknown]) => name.startsWith('backbone.')
  const ordered = [...parameters.filter(inBackbone), ...parameters.filter((entry) => !inBackbone(entry))]
  const fits = ([, { shape }]: [string, FileTensor], index: number) =>
    String(momentumBuffers.get(index)?.shape) === String(shape)
  if (momentumBuffers.size !== ordered.length || !ordered.every(fits)) return new Map()
  return new Map(ordered.flatMap(([name], index) => [[name, momentumBuffers.get(index)] as [string, FileTensor]]))
}

/**
 * The model that a checkpoint is of: widths and depths from the shapes of its tensors, dilations from its metadata.
 *
 * @throws UserError where the weights are not those of a whole model
 */
export function checkpointModel({ tensors, metadata, names }: Checkpoint, path: string): InferredModel {
  checkSingle(names, path)
  const row = architectureIn(metadata, tensors, path)
  const mismatch = row.explainMismatch?.(tensors)
  if (mismatch !== undefined) throw new UserError(`${path}: ${mismatch}`)
  const model = inferModel(row, tensors, parsed(metadata.model))
  if (!model) {
    const parts = partsOf([...tensors.keys()].map(names.nameInFile))
    throw new UserError(`${path}: it does not hold a whole ${row.contents}; its tensors are those of ${parts}`)
  }
  const { nclass } = model.config
  if (nclass > 255) throw new UserError(`${path}: it has ${nclass} classes, and at most 255 are possible`)
  return model
}

const maxParts = 8

/** What names begin with, up to the first place where they differ. */
function partsOf(names: readonly string[]): string {
  const split = names.map((name) => name.split('.'))
  const [first = []] = split
  let depth = 0
  while (depth < first.length - 1 && split.every((name) => name[depth] === first[depth])) depth++
  const parts = [...new Set(split.map((name) => name.slice(0, depth + 1).join('.')))]
  return parts.slice(0, maxParts).join(', ') + (parts.length > maxParts ? ' and more' : '')
}

/** @throws UserError where a file holds several networks, of which none is meant */
export function checkSingle({ several }: Checkpoint['names'], path: string): void {
  if (several.length < 2) return
  const prefixes = several.slice(0, maxParts).map((prefix) => `'${prefix}'`)
  throw new UserError(
    `${path}: it holds ${several.length} networks, with names that begin with ${prefixes.join(', ')}: ` +
      'save the one that is meant by itself',
  )
}

/** The architecture that the metadata name, or else the first one whose tensors there are. */
function architectureIn(metadata: Checkpoint['metadata'], tensors: Tensors, path: string): Architecture {
  const name = parsed(metadata.architecture)
  const all = [...architectures.values()]
  const hasBackbone = (row: Architecture) => Object.keys(row.inferConfig(tensors).widths).length > 0
  if (name === undefined) {
    return all.find((row) => inferModel(row, tensors, undefined)) ?? all.find(hasBackbone) ?? defaultArchitecture
  }
  const named = all.find((row) => row.name === name)
  if (named) return named
  throw new UserError(
    `${path}: its architecture is none of those that there are: ${[...architectures.keys()].join(', ')}`,
  )
}

/** A value of the metadata; undefined where it is missing or no JSON. */
export function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Tensors of a file as a state_dict: counters as 64-bit integers, whatever type the file has for them, all else as float32. */
export function stateOfFile(tensors: Iterable<readonly [string, FileTensor]>): Map<string, StateTensor> {
  const state = new Map<string, StateTensor>()
  for (const [name, tensor] of tensors) {
    const { shape, data } = tensor
    if (!isCounter(name)) state.set(name, { dtype: 'F32', shape, data: toFloat32(tensor) })
    else if (data instanceof BigInt64Array) state.set(name, { dtype: 'I64', shape, data })
    else
      state.set(name, { dtype: 'I64', shape, data: new BigInt64Array(data.length).fill(wholeCount(countOf(tensor))) })
  }
  return state
}

/** Averaged counts have fractions. Half precision ends at 65504: what was more is infinite there. */
const wholeCount = (count: number): bigint =>
  BigInt(Number.isFinite(count) ? Math.trunc(Math.min(count, Number.MAX_SAFE_INTEGER)) : 65504)

/** Why weights do not fit a model, and what to do about it. */
export function diagnose({ architecture, config }: SegmentationModel, state: ReadonlyMap<string, StateTensor>): string {
  const row = architectureOf(architecture)
  const mismatch = row.explainMismatch?.(state, config)
  if (mismatch !== undefined) return `${mismatch}; `
  const widths: Readonly<Record<string, unknown>> = { ...row.inferConfig(state).widths }
  const differing = differingKeys(config, widths)
  if (differing.length === 0) return ''
  const show = (value: unknown) => JSON.stringify(value)
  const found = differing.map((key) => `${key} ${show(widths[key])} instead of ${show(config[key])}`)
  return `it was trained with ${found.join(', ')}; `
}

/**
 * Gives a model the weights of a file.
 * @param origin names the file in the error
 * @param nameInFile the name there of a tensor, for the error
 * @throws UserError that says why they do not fit, and lists what is missing, unexpected or of another shape
 */
export function loadWeights(
  model: SegmentationModel,
  tensors: Iterable<readonly [string, FileTensor]>,
  origin: string,
  nameInFile?: (name: string) => string,
): void {
  const state = stateOfFile(tensors)
  try {
    loadStateDict(model, state, '', nameInFile)
  } catch (error) {
    const reason = `${diagnose(model, state)}${reasonOf(error)}`
    throw new UserError(`${origin}: ${reason}: choose the configuration with which it was trained`)
  }
}
