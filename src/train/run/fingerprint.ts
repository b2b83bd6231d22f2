import { createHash } from 'node:crypto'
import type { Config } from '../config/load.js'
import type { Sample } from '../data/dataset.js'
import { keysOfOthers } from '../methods/index.js'
import type { OptimizerSettings } from '../trainer/optimizer.js'

/** What a run computes with: its settings, and hashes of its lists. */
export type Fingerprint = Readonly<Record<string, unknown>>

/** Settings that do not change what a run computes. */
const notFingerprinted = [
  'data_root',
  'labeled_id_path',
  'unlabeled_id_path',
  'val_id_path',
  'workers',
  'max_unreadable',
  'log_interval',
  'save_map',
  'pretrained',
  'activation_checkpointing',
  'memory',
]

/** Settings without which weights, momentum buffers and snapshots mean nothing. */
const ofTheState = ['method', 'nclass', 'model', 'backbone', 'replace_stride_with_dilation', 'dilations', 'members']

const hashOf = (list: readonly Sample[]): string =>
  createHash('sha256')
    .update(list.map(({ name }) => `${name}\n`).join(''))
    .digest('hex')

/**
 * The settings of a run and hashes of its lists.
 * @param ranks that train together
 */
export function fingerprintOf(
  config: Config,
  lists: Readonly<Record<string, readonly Sample[]>>,
  ranks = 1,
): Fingerprint {
  const withoutFiles = JSON.parse(JSON.stringify(config, (key, value) => (key === 'pretrained' ? undefined : value)))
  const settings = Object.entries(withoutFiles).filter(([key]) => !notFingerprinted.includes(key))
  const hashes = Object.entries(lists).map(([name, list]) => [`list of ${name} images`, hashOf(list)])
  return Object.fromEntries([...settings, ...hashes, ...(ranks > 1 ? [['ranks', ranks]] : [])])
}

/** How the settings of a run that is resumed differ from those that it had; those of other methods do not count. */
export interface ChangedSettings {
  /** Those that make its state meaningless. */
  readonly forbidden: readonly string[]
  /** All others. */
  readonly allowed: readonly string[]
}

export function changedSettings(before: Fingerprint, now: Fingerprint): ChangedSettings {
  const foreign = keysOfOthers(String(now.method))
  const keys = [...new Set([...Object.keys(before), ...Object.keys(now)])].filter((key) => !foreign.includes(key))
  const isOfState = (key: string) =>
    ofTheState.includes(key) || (key === 'optimizer' && optimizerIn(before) !== optimizerIn(now))
  const changed = keys.filter((key) => JSON.stringify(before[key]) !== JSON.stringify(now[key]))
  return {
    forbidden: changed.filter(isOfState),
    allowed: changed.filter((key) => !isOfState(key)),
  }
}

/** Its name; what it is set to may change. */
const optimizerIn = ({ optimizer }: Fingerprint): string => (optimizer as OptimizerSettings['optimizer'])?.name ?? 'sgd'

/** Whether an epoch may have another number of iterations with such changes. */
export const changesEpochs = (keys: readonly string[]): boolean =>
  keys.some((key) => key === 'batch_size' || key === 'ranks' || /^list of (un)?labeled images$/.test(key))

/** `lr 0.001 instead of 0.01`; lists are hashes, which say nothing to people. */
export function showChange(key: string, before: Fingerprint, now: Fingerprint): string {
  if (key.startsWith('list of ')) return `another ${key}`
  if (key === 'ranks') {
    const [had, has] = [before, now].map(({ ranks = 1 }) => (ranks === 1 ? '1 rank' : `${ranks} ranks`))
    return `${has} instead of ${had}: a step takes other images, in other batches, and as many times batch_size of them`
  }
  const show = (value: unknown) => (value === undefined ? 'none' : JSON.stringify(value))
  return `${key} ${show(now[key])} instead of ${show(before[key])}`
}
