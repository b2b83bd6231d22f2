import { readdirSync } from 'node:fs'
import { extname, join, relative, resolve, sep } from 'node:path'
import { UserError } from '../error.js'
import { explainUnreadable, isImageName } from '../io/decoders.js'
import type { Folders } from './settings.js'

/** An image with its label, both as paths relative to the data folder, with slashes. */
export interface Pair {
  readonly image: string
  /** Null where no label has the image's name. */
  readonly label: string | null
}

/**
 * Whether a path stays in a folder, by its text alone: data sets are often put together from symbolic links.
 */
export function isInside(folder: string, path: string): boolean {
  const way = relative(resolve(folder), resolve(folder, path))
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && resolve(folder, way) === resolve(folder, path)
}

/** Labels hold numbers, which other formats than this one change. */
const isLabelName = (name: string): boolean => extname(name).toLowerCase() === '.png'

/** Files below a folder, as paths from there, in the order of their names; without hidden ones. */
function filesBelow(root: string, folder: string): string[] {
  const top = resolve(root, folder)
  if (top !== resolve(root) && !isInside(root, folder)) {
    throw new UserError(`the folder ${folder} is outside of ${root}: choose another data_root`)
  }
  try {
    const names = readdirSync(top, { recursive: true, encoding: 'utf8' })
    return names.filter((name) => !name.split(sep).some((part) => part.startsWith('.'))).sort()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UserError(
      code === 'ENOENT' || code === 'ENOTDIR'
        ? `there is no folder ${top}: check its path, which is relative to data_root (${root})`
        : `cannot read the folder ${top}: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

/** Files by the part of their path that images and labels share: those whose name ends in `suffix`. */
function byName(names: readonly string[], root: string, folder: string, suffix: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const name of names) {
    const stem = name.slice(0, name.length - extname(name).length)
    if (!stem.endsWith(suffix)) continue
    const shared = stem.slice(0, stem.length - suffix.length)
    const path = relative(root, join(resolve(root, folder), name))
      .split(sep)
      .join('/')
    const other = found.get(shared)
    if (other) throw new UserError(`${other} and ${path} have the same name without ending: rename one of them`)
    found.set(shared, path)
  }
  return found
}

/** Labels by the part of their path that they share with the images. */
function labelsIn(root: string, folder: string, suffix: string, alone: boolean): Map<string, string> {
  const names = filesBelow(root, folder)
  const labels = names.filter(isLabelName)
  const other = names.find((name) => isImageName(name) || explainUnreadable([name]) !== undefined)
  if (alone && labels.length === 0 && other !== undefined) {
    throw new UserError(
      `no label in ${resolve(root, folder)} is a PNG file, such as ${other}: convert the labels to PNG, from files that ` +
        'were stored without loss',
    )
  }
  return byName(labels, root, folder, suffix)
}

/**
 * The images of a folder, in the order of their names, each with the label of the same name; see `Folders`.
 * @throws UserError for a folder that is missing, holds no image that can be read, or is outside of `root`
 */
export function pairFolders(root: string, folders: Folders): Pair[] {
  const { images, labels, image_suffix: imageSuffix, label_suffix: labelSuffix } = folders
  const shared = labels !== undefined && resolve(root, labels) === resolve(root, images)
  if (shared && labelSuffix === '') {
    throw new UserError(`images and labels are both in ${images}: give a label_suffix that tells them apart`)
  }
  const labelFiles = labels === undefined ? new Map<string, string>() : labelsIn(root, labels, labelSuffix, !shared)
  // Labels that lie among the images are no images.
  const noImages = new Set(shared ? labelFiles.values() : [])
  const names = filesBelow(root, images)
  const imageFiles = [...byName(names.filter(isImageName), root, images, imageSuffix)].filter(
    ([, path]) => !noImages.has(path),
  )
  if (imageFiles.length === 0) {
    const suffix = imageSuffix === '' ? '' : ` whose names end in '${imageSuffix}'`
    const why = explainUnreadable(names) ?? 'check the folder'
    throw new UserError(`there are no images${suffix} in ${resolve(root, images)}: ${why}`)
  }
  return imageFiles.map(([name, image]) => ({ image, label: labelFiles.get(name) ?? null }))
}
