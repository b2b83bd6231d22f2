import { backboneNames } from '../../models/index.js'
import type { BackboneNames } from '../../models/segmentation.js'

/** What common programs wrap a model in: DataParallel, torch.compile, Lightning and others. */
const wrappers = ['module.', '_orig_mod.', 'model.', 'net.', 'network.']
/** What the same programs put within names where they wrapped parts of a model. */
const innerWrappers = /(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g
const ours = 'backbone.'

/** Tensors of a file, under the names that they have in a model here. */
export interface Renamed<T> {
  readonly tensors: ReadonlyMap<string, T>
  /** What was done, in words: a prefix that was taken off, names that stand for others, tensors that are left aside. */
  readonly changes: readonly string[]
  /** Where the file holds several networks of which none is meant: what their names begin with. */
  readonly several: readonly string[]
  /** The name in the file of a tensor that is there, or that is missing. */
  readonly nameInFile: (name: string) => string
}

interface Place {
  /** What the names of the whole network begin with. */
  readonly prefix: string
  /** `backbone.`, or what stands for it behind the prefix; empty where there is a backbone alone. */
  readonly backbone: string
  /** How its layers are named; undefined where only the prefix is certain. */
  readonly rules?: BackboneNames | undefined
}

/** The networks of a file, by the tensors that tell a backbone of a known kind. */
function findPlaces(names: Iterable<string>): Place[] {
  const places: Place[] = []
  for (const name of names) {
    for (const rules of backboneNames) {
      const { landmark } = rules
      if (name !== landmark && !name.endsWith(`.${landmark}`)) continue
      const at = name.slice(0, -landmark.length)
      const [, prefix = at, backbone = ''] = /^(|.*\.)((?:backbone|encoder)\.)$/.exec(at) ?? []
      places.push({ prefix, backbone, rules })
    }
  }
  return places
}

/** Wrappers that stand before every name, one within the other. */
function commonPrefix(names: readonly string[]): string {
  let prefix = ''
  for (;;) {
    const next = wrappers.find((wrapper) => names.every((name) => name.startsWith(prefix + wrapper)))
    if (next === undefined || names.length === 0) return prefix
    prefix += next
  }
}

/** Names without wrappers of parts, and which name of the file each was. As they are where two would become the same. */
function unwrapParts(names: readonly string[]): ReadonlyMap<string, string> {
  const start = commonPrefix(names).length
  const cleaned = new Map(
    names.map((name) => [name.slice(0, start) + name.slice(start).replace(innerWrappers, ''), name]),
  )
  return cleaned.size === names.length ? cleaned : new Map(names.map((name) => [name, name]))
}

/**
 * Gives the tensors of a file the names of a model here: without the prefix of what the model was wrapped in, and with
 * `backbone.` and the layers' names in place of those of other programs. Names that tell nothing are left as they are.
 */
export function rename<T>(tensors: ReadonlyMap<string, T>): Renamed<T> {
  const unwrapped = unwrapParts([...tensors.keys()])
  const names = [...unwrapped.keys()]
  const places = findPlaces(names)
  const [first] = places
  const single = first !== undefined && places.length === 1
  const place: Place = single ? first : { prefix: commonPrefix(names), backbone: '' }
  // Where two tensors would have the same name, only the prefix is certain.
  const naming = nameAt(names, place) ?? nameAt(names, { prefix: place.prefix, backbone: '' })
  const wrapped = names.find((name) => unwrapped.get(name) !== name)
  const changes = [
    ...(naming?.changes ?? []),
    ...(wrapped === undefined ? [] : [`wrappers of its parts taken off, such as in ${unwrapped.get(wrapped)}`]),
  ]
  const found = [...(naming?.names ?? [])].flatMap(([name, old]) => {
    const inFile = unwrapped.get(old) ?? old
    const tensor = tensors.get(inFile)
    return tensor === undefined ? [] : [{ name, inFile, tensor }]
  })
  const inFile = new Map(found.map((each) => [each.name, each.inFile]))
  return {
    tensors: new Map(found.map(({ name, tensor }) => [name, tensor])),
    changes,
    several: single ? [] : places.map(({ prefix }) => prefix),
    nameInFile: (name) => inFile.get(name) ?? naming?.back(name) ?? name,
  }
}

/** The names of one network, new to old, and the way back for others; undefined where two would become the same. */
function nameAt(all: readonly string[], { prefix, backbone, rules }: Place) {
  const used = new Set<readonly [string, string]>()
  const byBeginning = (name: string, pairs: BackboneNames['synonyms']): string => {
    const synonym = pairs.find(([theirs]) => name.startsWith(theirs))
    if (synonym) used.add(synonym)
    return synonym ? synonym[1] + name.slice(synonym[0].length) : name
  }
  const translate = (name: string): string => {
    if (!name.startsWith(backbone)) return byBeginning(name, rules?.outside ?? [])
    const layer = byBeginning(name.slice(backbone.length), rules?.synonyms ?? [])
    return (backbone === '' ? '' : ours) + (rules?.translate?.(layer) ?? layer)
  }
  const inside = all.filter((name) => name.startsWith(prefix))
  const names = new Map(inside.map((name) => [translate(name.slice(prefix.length)), name]))
  if (names.size < inside.length) return undefined
  const back = (name: string): string => {
    const within = backbone !== '' && name.startsWith(ours)
    const rest = within ? name.slice(ours.length) : name
    const [theirs, mine] = [...used].find(([, here]) => rest.startsWith(here)) ?? ['', '']
    return `${prefix}${within ? backbone : ''}${theirs}${rest.slice(mine.length)}`
  }
  const aside = all.filter((name) => !name.startsWith(prefix))
  const changes = [
    ...(prefix === '' ? [] : [`prefix '${prefix}' taken off`]),
    ...(backbone === '' || backbone === ours ? [] : [`'${backbone}' read as '${ours}'`]),
    ...[...used].map(([theirs, here]) => `'${theirs}' read as '${here}'`),
    ...(rules?.translate ? [`layers named as in ${rules.program}`] : []),
    ...(aside.length === 0 ? [] : [`${aside.length} tensors outside of it left aside, such as ${aside[0]}`]),
  ]
  return { names, back, changes }
}
