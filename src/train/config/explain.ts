import { z } from 'zod'
import { UserError } from '../error.js'
import { configSchema } from './schema.js'

const maxCompared = 100

/** Keys of the object schema at `path`, or null where there is no object. */
export function keysAt(path: readonly string[]): string[] | null {
  let at: unknown = configSchema()
  for (const key of path) {
    const shape = objectShape(at)
    if (!shape || !Object.hasOwn(shape, key)) return null
    at = shape[key]
  }
  const shape = objectShape(at)
  return shape && Object.keys(shape)
}

/** Fields of an object schema beneath its wrappers (default, optional, preprocess). */
function objectShape(type: unknown): Record<string, unknown> | null {
  let at = type
  for (;;) {
    if (at instanceof z.ZodObject) return at.shape
    if (at instanceof z.ZodPipe) at = at.def.out
    else if (at instanceof z.ZodUnion) at = at.def.options.find((option) => option instanceof z.ZodObject)
    else if (at instanceof z.ZodPrefault || at instanceof z.ZodDefault || at instanceof z.ZodOptional)
      at = at.def.innerType
    else return null
  }
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}

/** All keys of the schema with dots between the levels. */
function dottedKeys(path: readonly string[] = []): string[] {
  return (keysAt(path) ?? []).flatMap((key) => [[...path, key].join('.'), ...dottedKeys([...path, key])])
}

/** The error of a key that does not exist, with the nearest that do. */
export function unknownKey(path: readonly string[], origin: string): UserError {
  const name = path.join('.')
  // Comparing takes time by the product of the lengths.
  const [compared, lastOfName] = [name, path.at(-1) ?? name].map((text) => text.slice(0, maxCompared)) as [
    string,
    string,
  ]
  const distance = (candidate: string) => {
    const last = candidate.split('.').at(-1) ?? candidate
    return Math.min(editDistance(compared, candidate), editDistance(lastOfName, last) + 0.5)
  }
  const nearest = dottedKeys()
    .map((key) => ({ key, distance: distance(key) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ key }) => key)
  return new UserError(`${origin}: unknown key '${name}'; the nearest valid ones are ${nearest.join(', ')}`)
}

export function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? 'nothing')
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

type Issue = z.core.$ZodIssue

/** Names the source of the value at a dotted key: the file, or an option. */
export type Origin = (key: string) => string

/** The fault within the alternative that was meant: the one whose kind of value was given. */
function deepest(issue: Issue | undefined, path: PropertyKey[]): Issue | undefined {
  if (!issue) return undefined
  const at = [...path, ...issue.path]
  if (issue.code !== 'invalid_union') return { ...issue, path: at }
  const meant = issue.errors.find(([first]) => first && (first.path.length > 0 || first.code !== 'invalid_type'))
  if (meant) return deepest(meant[0], at)
  return { ...issue, path: at }
}

/** One line for the first fault that zod found. */
export function explain(error: z.ZodError, origin: Origin): UserError {
  const issue = deepest(error.issues[0], [])
  if (!issue) return new UserError(`${origin('')}: invalid configuration`)
  const path = issue.path.map(String)
  const key = path.join('.')
  if (issue.code === 'unrecognized_keys') return unknownKey([...path, issue.keys[0] ?? ''], origin(key))
  const expected = issue.message.replace(/^[^:]*: (?=expected)/, '').replace(/, received .*$/, '')
  const found = issue.input === undefined ? 'is missing' : `is ${show(issue.input)}`
  return new UserError(`${origin(key)}: '${key}' ${found}, ${expected.slice(0, 1).toLowerCase()}${expected.slice(1)}`)
}
