import type { Device } from '../../engine/device.js'
import { Store } from '../../engine/store.js'
import { createModel, type DeepLabV3Plus, type ModelConfig, modelConfig } from '../../models/deeplabv3plus.js'
import type { Config } from '../config/load.js'
import { paletteOf, type Rgb, vocPalette } from '../data/classes.js'
import { UserError } from '../error.js'
import { type Checkpoint, checkpointModel, loadWeights, readCheckpoint } from './read.js'

/** A checkpoint that was read and checked, but not yet given to a device. */
export interface Trained {
  readonly path: string
  readonly checkpoint: Checkpoint
  readonly config: ModelConfig
  /** Whether the dilations are known, and not only the usual ones. */
  readonly stated: boolean
  readonly classNames: readonly string[]
  readonly palette: readonly Rgb[]
}

function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
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
 * Reads a checkpoint of either format and what it says of its model and classes. A configuration prevails for dilations,
 * names and colours; where neither says them, names are the indices and colours those of VOC's colour map.
 *
 * @throws UserError where the file cannot be read, or was trained with other classes or dilations than configured
 */
export function readTrained(path: string, config?: Config): Trained {
  const checkpoint = readCheckpoint(path)
  const { config: own, stated } = checkpointModel(checkpoint, path)
  const { nclass } = own
  if (config && config.nclass !== nclass) {
    throw new UserError(
      `${path} was trained with ${nclass} classes, but the configuration has nclass ${config.nclass}: ` +
        'choose the configuration with which it was trained',
    )
  }
  const wanted = config && modelConfig(config)
  for (const key of ['dilations', 'replace_stride_with_dilation'] as const) {
    if (!wanted || !stated || String(wanted[key]) === String(own[key])) continue
    throw new UserError(
      `${path} was trained with ${key} [${own[key].join(', ')}], but the configuration has ` +
        `[${wanted[key].join(', ')}]: choose the configuration with which it was trained`,
    )
  }
  return {
    path,
    checkpoint,
    config: wanted ?? own,
    stated: stated || wanted !== undefined,
    classNames: config?.class_names ?? namesIn(checkpoint, nclass) ?? Array.from({ length: nclass }, (_, k) => `${k}`),
    palette: config?.palette ?? (paletteIn(checkpoint, nclass) || (config ? paletteOf(config) : vocPalette(nclass))),
  }
}

/** The model of a checkpoint on a device, in a store of its own. Throws a UserError where the weights do not fit. */
export function openTrained(device: Device, { path, checkpoint, config }: Trained): DeepLabV3Plus {
  const model = createModel(new Store(device, 'model'), config)
  loadWeights(model, checkpoint.tensors, path)
  return model
}

/** `, after epoch 12` where the checkpoint says it. */
export function epochOf({ checkpoint }: Trained): string {
  const epoch = parsed(checkpoint.metadata.epoch)
  return typeof epoch === 'number' ? `, after epoch ${epoch}` : ''
}
