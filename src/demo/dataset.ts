import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { indexPng, rgbPng } from '../train/drawing/masks.js'
import { UserError } from '../train/error.js'
import { balancedScenes } from './balanced.js'
import { classNames, palette, scene } from './scenes.js'

/** What {@link writeScenes} generates. */
export interface SceneSet {
  /** Seed of the world: the same seed and size give the same files. */
  seed: number
  /** Side of the square images in pixels. */
  size: number
  /** Number of images in each list; each list has scenes of its own. In every labeled one all classes can be seen. */
  labeled: number
  unlabeled: number
  validation: number
}

/** Where {@link writeScenes} put things. */
export interface ScenePaths {
  /** The folder that the lines of the lists are relative to. */
  root: string
  /** Lists: `image label` a line; `unlabeled` has the image only. */
  labeled: string
  unlabeled: string
  validation: string
}

/** Raised when the scenes of a seed change, so that folders written before are written anew. */
const version = 3
const stampName = 'scenes.json'

/**
 * Writes a data set of scenes into `folder`: RGB images under images/, label maps (8-bit grey, class indices) under
 * labels/, and the lists labeled.txt, unlabeled.txt and val.txt. A folder that holds the same set already is left as it
 * is; one that holds another set of scenes is replaced. Nothing half-written stays behind.
 *
 * @param progress called with the number of scenes done and the number of all
 * @throws UserError if a number is out of range, or `folder` exists and holds something else than scenes
 */
export async function writeScenes(
  folder: string,
  set: SceneSet,
  progress: (done: number, all: number) => void = () => {},
): Promise<ScenePaths> {
  for (const key of ['seed', 'size', 'labeled', 'unlabeled', 'validation'] as const) {
    const least = key === 'seed' ? 0 : 1
    if (!Number.isInteger(set[key]) || set[key] < least) {
      throw new UserError(`scenes: ${key} is ${set[key]}; it must be an integer of at least ${least}`)
    }
  }
  const target = resolve(folder)
  const { seed, size, labeled, unlabeled, validation } = set
  const stamp = `${JSON.stringify({ version, seed, size, labeled, unlabeled, validation, classNames, palette })}\n`
  const found = await inspect(target, stamp)
  if (found !== 'same') {
    await mkdir(dirname(target), { recursive: true })
    const temporary = await mkdtemp(join(dirname(target), `.${basename(target)}-`))
    try {
      await fill(temporary, set, progress)
      await writeFile(join(temporary, stampName), stamp)
      if (found === 'other') await rm(target, { recursive: true })
      await rename(temporary, target)
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
  }
  return {
    root: target,
    labeled: join(target, 'labeled.txt'),
    unlabeled: join(target, 'unlabeled.txt'),
    validation: join(target, 'val.txt'),
  }
}

/** Whether `folder` is absent, holds the set of `stamp`, or another set of scenes. */
async function inspect(folder: string, stamp: string): Promise<'absent' | 'same' | 'other'> {
  if ((await stat(folder).catch(absent)) === undefined) return 'absent'
  const found = await readFile(join(folder, stampName), 'utf8').catch(absent)
  if (found === undefined) throw new UserError(`${folder} exists and holds no scenes; name another folder or remove it`)
  return found === stamp ? 'same' : 'other'
}

/** Turns the error of a missing file, or of a file where a folder should be, into undefined. */
function absent(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR'))
    return undefined
  throw error
}

async function fill(folder: string, set: SceneSet, progress: (done: number, all: number) => void): Promise<void> {
  await mkdir(join(folder, 'images'))
  await mkdir(join(folder, 'labels'))
  const all = set.labeled + set.unlabeled + set.validation
  const { seed, size, labeled, unlabeled, validation } = set
  const lists = [
    { name: 'unlabeled.txt', indices: range(0, unlabeled), withLabel: false },
    { name: 'val.txt', indices: range(unlabeled, validation), withLabel: true },
    { name: 'labeled.txt', indices: balancedScenes(seed, size, labeled, unlabeled + validation), withLabel: true },
  ]
  let done = 0
  for (const { name, indices, withLabel } of lists) {
    const lines: string[] = []
    for (const index of indices) {
      const file = `${String(index).padStart(5, '0')}.png`
      const { image, label } = scene(seed, index, size)
      const sides = { width: size, height: size }
      await writeFile(join(folder, 'images', file), await rgbPng({ data: image, ...sides }))
      if (withLabel) await writeFile(join(folder, 'labels', file), await indexPng({ data: label, ...sides }))
      lines.push(withLabel ? `images/${file} labels/${file}` : `images/${file}`)
      done += 1
      progress(done, all)
    }
    await writeFile(join(folder, name), `${lines.join('\n')}\n`)
  }
}

const range = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i)
