import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { UserError, WriteError } from '../error.js'
import { makeFolder, reasonOf, removeQuietly, renameDurably, writeAtomically } from '../io/files.js'
import { Random } from '../random.js'
import { readEntries } from './dataset.js'
import { type Pair, pairFolders } from './folders.js'
import { inspectSamples } from './inspect.js'
import { maxValues } from './inspect-worker.js'

/** Where images come from and how they are divided; as the options of `dist/split.js`. */
export interface SplitOptions {
  readonly dataRoot: string
  readonly images?: string
  readonly labels?: string
  readonly imageSuffix?: string
  readonly labelSuffix?: string
  readonly list?: string
  readonly labeled?: string
  readonly labeledList?: string
  readonly val?: string
  readonly balanced?: true
  readonly ignoreIndex: number
  readonly seed: number
}

/**
 * Number of images that a text asks for: a count such as `100`, or a part such as `1/8` or `0.125`, rounded up as in the
 * official splits.
 * @throws UserError for anything else, and for more than there are
 */
export function countOf(text: string, total: number, option: string): number {
  const wrong = (why: string) =>
    new UserError(`${option} ${text}: ${why}; write a count such as 100, or a part such as 1/8 or 0.125`)
  const ratio = /^(\d+)\/(\d+)$/.exec(text)
  const part = ratio ? Number(ratio[1]) / Number(ratio[2]) : /^\d*\.\d+$/.test(text) ? Number(text) : undefined
  if (part === undefined && !/^\d+$/.test(text)) throw wrong('this is no number')
  // The part of 30 that 0.1 is must be 3, not the 4 that rounding errors would make of it.
  const count = part === undefined ? Number(text) : Math.ceil(part * total - 1e-9)
  if (!Number.isSafeInteger(count) || count < 1) throw wrong('at least one image is needed')
  if (count > total) throw wrong(`there are ${total} images`)
  return count
}

/** `count` of the numbers 0 to total - 1 at random, in ascending order. */
export function chooseRandom(total: number, count: number, random: Random): number[] {
  return Array.from(random.permutation(total).subarray(0, count)).sort((a, b) => a - b)
}

/**
 * `count` images at random that show each class about equally often: again and again an image of the class that the
 * chosen ones show least often (of several such classes the rarest) as long as there is one.
 * @param classes of each image
 * @returns indices of images in ascending order
 */
export function chooseBalanced(classes: readonly (readonly number[])[], count: number, random: Random): number[] {
  const order = Array.from(random.permutation(classes.length))
  const images = new Map<number, number[]>()
  for (const image of order) {
    for (const label of classes[image] ?? []) {
      const known = images.get(label)
      if (known) known.push(image)
      else images.set(label, [image])
    }
  }
  const queues = [...images].map(([label, list]) => ({ label, total: list.length, left: list.reverse(), shown: 0 }))
  const byLabel = new Map(queues.map((queue) => [queue.label, queue]))
  const chosen = new Set<number>()
  while (chosen.size < count) {
    for (const { left } of queues) while (left.length > 0 && chosen.has(left.at(-1) as number)) left.pop()
    const [neediest] = queues
      .filter(({ left }) => left.length > 0)
      .sort((a, b) => a.shown - b.shown || a.total - b.total || a.label - b.label)
    const image = neediest?.left.pop() ?? order.find((index) => !chosen.has(index))
    if (image === undefined) break
    chosen.add(image)
    for (const label of classes[image] ?? []) {
      const queue = byLabel.get(label)
      if (queue) queue.shown++
    }
  }
  return [...chosen].sort((a, b) => a - b)
}

/** All images, with their labels where they have one. */
function readPairs(options: SplitOptions): readonly Pair[] {
  const { list, images, labels, dataRoot, imageSuffix: image_suffix = '', labelSuffix: label_suffix = '' } = options
  if ((list === undefined) === (images === undefined)) {
    throw new UserError('give either --images, with --labels, or --list')
  }
  if (list !== undefined) return unique(readEntries(list, dataRoot), list)
  return pairFolders(dataRoot, { images: images ?? '', labels, image_suffix, label_suffix })
}

/** Refuses an image that occurs twice, which would end up in two lists. */
function unique<T extends Pair & { readonly where: string }>(entries: readonly T[], list: string): readonly T[] {
  const seen = new Set<string>()
  for (const { image, where } of entries) {
    if (seen.has(image)) throw new UserError(`${where}: ${image} is in the list ${list} already: take it off once`)
    seen.add(image)
  }
  return entries
}

/** The different values in the label of each pair but the ignored one. */
async function classesOf(
  pairs: readonly Pair[],
  { dataRoot, ignoreIndex }: SplitOptions,
): Promise<Map<Pair, number[]>> {
  const samples = pairs.map(({ image, label }) => {
    return { name: image, image: resolve(dataRoot, image), label: resolve(dataRoot, label ?? '') }
  })
  const inspections = await inspectSamples(samples, null)
  const classes = new Map<Pair, number[]>()
  for (const [i, { id, values, problems }] of inspections.entries()) {
    const [problem] = problems
    if (problem !== undefined) throw new UserError(problem)
    if (values.length >= maxValues) {
      throw new UserError(`${samples[id]?.label} has ${maxValues} different values or more: it is no label`)
    }
    classes.set(
      pairs[i] as Pair,
      values.filter((value) => value !== ignoreIndex),
    )
  }
  return classes
}

/** @param classes of each pair, where the choice is to be balanced */
function choose(
  pairs: readonly Pair[],
  count: number,
  { seed }: SplitOptions,
  stream: number,
  classes: ReadonlyMap<Pair, readonly number[]> | undefined,
): Pair[] {
  const random = new Random(seed, stream)
  const chosen = classes
    ? chooseBalanced(
        pairs.map((pair) => classes.get(pair) ?? []),
        count,
        random,
      )
    : chooseRandom(pairs.length, count, random)
  return chosen.map((index) => pairs[index] as Pair)
}

const without = (pairs: readonly Pair[], taken: readonly Pair[]): Pair[] => {
  const names = new Set(taken.map(({ image }) => image))
  return pairs.filter(({ image }) => !names.has(image))
}

/**
 * Divides images into lists.
 * @returns the lists by file name
 */
export async function makeLists(options: SplitOptions): Promise<Map<string, readonly Pair[]>> {
  const { labeled, labeledList, val, dataRoot } = options
  if ((labeled === undefined) === (labeledList === undefined)) {
    throw new UserError('give either --labeled, the number of labeled images, or --labeled-list')
  }
  const all = readPairs(options)
  if (labeledList !== undefined) {
    if (val !== undefined) throw new UserError('--val needs --labeled: a list that is there already stays as it is')
    const given = unique(readEntries(labeledList, dataRoot), labeledList)
    const names = new Set(all.map(({ image }) => image))
    const stranger = given.find(({ image }) => !names.has(image))
    if (stranger) {
      throw new UserError(`${stranger.where}: ${stranger.image} is not among the ${all.length} images: check data_root`)
    }
    return new Map([['unlabeled.txt', without(all, given)]])
  }
  const known = all.filter(({ label }) => label !== null)
  if (known.length === 0) {
    throw new UserError('no image has a label: give --labels, or a list with labels; check --label-suffix')
  }
  const wanted = val === undefined ? undefined : countOf(val, known.length, '--val')
  const classes = options.balanced ? await classesOf(known, options) : undefined
  const validation = wanted === undefined ? [] : choose(known, wanted, options, 1, classes)
  const rest = without(known, validation)
  if (rest.length === 0) throw new UserError(`--val ${val}: all labeled images are taken: ask for fewer`)
  const chosen = choose(rest, countOf(labeled ?? '', rest.length, '--labeled'), options, 2, classes)
  const lists = new Map<string, readonly Pair[]>([
    ['labeled.txt', chosen],
    ['unlabeled.txt', without(without(all, validation), chosen)],
  ])
  return val === undefined ? lists : lists.set('val.txt', validation)
}

/** A line of a list; a tab ends an image's name that holds spaces. */
function line({ image, label }: Pair): string {
  if (/[\t\n\r]/.test(`${image}${label ?? ''}`))
    throw new UserError(`${image} has a tab or line end in its name: rename it`)
  if (label === null) return image.includes(' ') ? `${image}\t` : image
  return `${image}${/ /.test(`${image}${label}`) ? '\t' : ' '}${label}`
}

/**
 * Writes lists into a folder, all of them or none.
 * @throws UserError where one is there already, unless `overwrite` is set, or one cannot be written
 */
export function writeLists(lists: ReadonlyMap<string, readonly Pair[]>, out: string, overwrite: boolean): void {
  for (const name of lists.keys()) {
    if (existsSync(join(out, name)) && !overwrite) {
      throw new UserError(`${join(out, name)} is there already: choose another --out, or replace it with --overwrite`)
    }
  }
  const texts = [...lists].map(([name, pairs]) => [name, pairs.map((pair) => `${line(pair)}\n`).join('')] as const)
  makeFolder(out)
  const temporary = (name: string) => join(out, `.${name}.new`)
  try {
    for (const [name, text] of texts) writeAtomically(temporary(name), [Buffer.from(text)])
    for (const [name] of texts) rename(temporary(name), join(out, name))
  } finally {
    for (const [name] of texts) removeQuietly(temporary(name))
  }
}

function rename(from: string, to: string): void {
  try {
    renameDurably(from, to)
  } catch (error) {
    throw new WriteError(to, reasonOf(error))
  }
}
