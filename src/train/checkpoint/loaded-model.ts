import type { Device } from '../../engine/device.js'
import { Store } from '../../engine/store.js'
import { architectureOf, createModel, type InferredModel, type ModelSpec } from '../../models/index.js'
import { differingKeys } from '../../models/infer.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import type { Config } from '../config/schema.js'
import { paletteOf, type Rgb, vocPalette } from '../data/classes.js'
import { UserError } from '../error.js'
import { modelsOf } from '../methods/index.js'
import { type Checkpoint, checkpointModel, loadWeights, parsed } from './parse.js'

/** A checkpoint that was read and checked, but not yet given to a device. */
export interface LoadedModel extends InferredModel {
  readonly path: string
  readonly checkpoint: Checkpoint
  readonly classNames: readonly string[]
  readonly palette: readonly Rgb[]
}

const isColor = (value: unknown): value is Rgb =>
  Array.isArray(value) && value.length === 3 && value.every((v) => Number.isInteger(v) && v >= 0 && v <= 255)

function namesIn({ metadata }: Checkpoint, nclass: number): string[] | undefined {
  const names = parsed(metadata.class_names)
  const fits = Array.isArray(names) && names.length === nclass && names.every((name) => typeof name === 'string')
  return fits ? names.map((name) => name.replace(/\p{Cc}+/gu, ' ')) : undefined
}

function paletteIn({ metadata }: Checkpoint, nclass: number): Rgb[] | undefined {
  const palette = parsed(metadata.palette)
  return Array.isArray(palette) && palette.length === nclass && palette.every(isColor) ? palette : undefined
}

/**
 * A checkpoint with what it says of its model and classes. A configuration prevails for dilations,
 * names and colours; where neither says them, names are the indices and colours those of VOC's colour map.
 *
 * @throws UserError where it is not of a whole model, or was trained with other classes or dilations than configured
 */
export function describeCheckpoint(checkpoint: Checkpoint, path: string, config?: Config): LoadedModel {
  const own = checkpointModel(checkpoint, path)
  const { nclass } = own.config
  if (config && config.nclass !== nclass) {
    throw new UserError(
      `${path} was trained with ${nclass} classes, but the configuration has nclass ${config.nclass}: ` +
        'choose the configuration with which it was trained',
    )
  }
  const wanted = config && wantedOf(config, own, checkpoint)
  if (wanted && wanted.architecture !== own.architecture) {
    throw new UserError(
      `${path} is of a ${own.architecture}, but the configuration asks for a ${wanted.architecture}: ` +
        'choose the configuration with which it was trained',
    )
  }
  const mismatch = wanted && architectureOf(wanted.architecture).explainMismatch?.(checkpoint.tensors, wanted.config)
  if (mismatch !== undefined)
    throw new UserError(`${path}: ${mismatch}: choose the configuration with which it was trained`)
  if (wanted && own.hasGeometry) checkGeometry(path, own, wanted)
  return {
    path,
    checkpoint,
    ...own,
    ...wanted,
    hasGeometry: own.hasGeometry || wanted !== undefined,
    classNames: config?.class_names ?? namesIn(checkpoint, nclass) ?? Array.from({ length: nclass }, (_, k) => `${k}`),
    palette: config?.palette ?? (paletteIn(checkpoint, nclass) || (config ? paletteOf(config) : vocPalette(nclass))),
  }
}

/** Of the models of a configuration's training the one that a checkpoint is of, or else the first. */
function wantedOf(config: Config, { architecture }: ModelSpec, { tensors }: Checkpoint): ModelSpec {
  const models = modelsOf(config)
  const { widths } = architectureOf(architecture).inferConfig(tensors)
  const isOf = (spec: ModelSpec) =>
    spec.architecture === architecture && differingKeys(spec.config, widths).length === 0
  return models.find(isOf) ?? models[0]
}

/** @throws UserError where what no tensor shows is configured differently */
function checkGeometry(path: string, own: InferredModel, wanted: ModelSpec): void {
  const [key] = differingKeys(wanted.config, own.geometry)
  if (key === undefined) return
  throw new UserError(
    `${path} was trained with ${key} ${showList(own.config[key])}, but the configuration has ${showList(wanted.config[key])}: ` +
      'choose the configuration with which it was trained',
  )
}

const showList = (value: unknown): string => (Array.isArray(value) ? `[${value.join(', ')}]` : String(value))

/** The model of a checkpoint on a device, in a store of its own. Throws a UserError where the weights do not fit. */
export function openModel(device: Device, loaded: LoadedModel): SegmentationModel {
  const model = createModel(new Store(device, 'model'), loaded)
  loadWeights(model, loaded.checkpoint.tensors, loaded.path, loaded.checkpoint.names.nameInFile)
  return model
}

/** What no tensor of a checkpoint shows, as it is taken to be: `dilations: taking [6,12,18]`. */
export function showGeometry({ geometry }: Pick<InferredModel, 'geometry'>): string {
  const [[first, value] = ['geometry', []], ...others] = Object.entries(geometry)
  const rest = others.map(([key, other]) => ` and ${key} ${JSON.stringify(other)}`)
  return `${first}: taking ${JSON.stringify(value)}${rest.join('')}`
}

/** `, after epoch 12` where the checkpoint says it. */
export function epochOf({ checkpoint }: LoadedModel): string {
  const epoch = parsed(checkpoint.metadata.epoch)
  return typeof epoch === 'number' ? `, after epoch ${epoch}` : ''
}
