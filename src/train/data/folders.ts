import { readdirSync } from 'node:fs'
import { extname, join, relative, resolve, sep } from 'node:path'
import { UserError } from '../error.js'
import type { Folders } from './settings.js'

/** An image with its label, both as paths relative to the data folder, with slashes. */
export interface Pair {
  readonly image: string
  /** Null where no label has the image's name. */
  readonly label: string | null
}

/** Endings of image files. */
const imageEndings = new Set(['.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff'])

/**
 * Whether a path stays in a folder, by its text alone: data sets are often put together from symbolic links.
 */
export function isInside(folder: string, path: string): boolean {
  const way = relative(resolve(folder), resolve(folder, path))
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && resolve(folder, way) === resolve(folder, path)
}

/** Files below a folder by the part of their path that images and labels share. */
function filesByName(root: string, folder: string, suffix: string, endings: ReadonlySet<string>): Map<string, string> {
  const top = resolve(root, folder)
  if (top !== resolve(root) && !isInside(root, folder)) {
    throw new UserError(`the folder ${folder} is outside of ${root}: choose another data_root`)
  }
  let names: string[]
  try {
    names = readdirSync(top, { recursive: true, encoding: 'utf8' })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UserError(
      code === 'ENOENT' || code === 'ENOTDIR'
        ? `there is no folder ${top}: check its path, which is relative to data_root (${root})`
        : `cannot read the folder ${top}: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
  const found = new Map<string, string>()
  for (const name of names.sort()) {
    const ending = extname(name)
    const stem = name.slice(0, name.length - ending.length)
    const hidden = name.split(sep).some((part) => part.startsWith('.'))
    if (hidden || !endings.has(ending.toLowerCase()) || !stem.endsWith(suffix)) continue
    const shared = stem.slice(0, stem.length - suffix.length)
    const path = relative(root, join(top, name)).split(sep).join('/')
    const other = found.get(shared)
    if (other) throw new UserError(`${other} and ${path} have the same name without ending: rename one of them`)
    found.set(shared, path)
  }
  return found
}

/**
 * The images of a folder, in the order of their names, each with the label of the same name; see `Folders`.
 * @throws UserError for a folder that is missing, empty or outside of `root`
 */
export function pairFolders(root: string, folders: Folders): Pair[] {
  const { images, labels, image_suffix: imageSuffix, label_suffix: labelSuffix } = folders
  const labelFiles =
    labels === undefined ? new Map<string, string>() : filesByName(root, labels, labelSuffix, new Set(['.png']))
  // Labels that lie among the images are no images.
  const shared = labels !== undefined && resolve(root, labels) === resolve(root, images)
  if (shared && labelSuffix === '') {
    throw new UserError(`images and labels are both in ${images}: give a label_suffix that tells them apart`)
  }
  const noImages = new Set(shared ? labelFiles.values() : [])
  const imageFiles = [...filesByName(root, images, imageSuffix, imageEndings)].filter(([, path]) => !noImages.has(path))
  if (imageFiles.length === 0) {
    const suffix = imageSuffix === '' ? '' : ` whose names end in '${imageSuffix}'`
    throw new UserError(`there are no images${suffix} in ${resolve(root, images)}: check the folder`)
  }
  return imageFiles.map(([name, image]) => ({ image, label: labelFiles.get(name) ?? null }))
}
