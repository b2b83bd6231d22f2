import type { Fail } from './byte-source.js'
import { Foreign, notRead, quoted } from './pickle.js'

const isNamed = (value: unknown): value is Map<string, unknown> =>
  value instanceof Map && value.size > 0 && [...value.keys()].every((key) => typeof key === 'string')

/** Where programs keep the weights of their model, the usual places first. */
const stateKeys: readonly string[] = [
  'model',
  'state_dict',
  'model_state_dict',
  'model_state',
  'net',
  'network',
  'module',
  'weights',
  'params',
]
/** Keys whose tensors are no weights. */
const otherKeys = /optim|sched|scaler|callback|loop|hyper|rng|random|args|config|meta/i
const maxDepth = 3
const maxEntries = 100

type Test = (value: unknown) => boolean

interface FoundState {
  readonly state: ReadonlyMap<string, unknown>
  readonly keys: readonly string[]
}

/**
 * A state_dict that is this value, or is within it under at most `depth` usual keys.
 * @param seen what was looked at, and is not again: the same value may be there under many keys
 */
function usualState(value: unknown, isTensor: Test, depth: number, seen = new Set<unknown>()): FoundState | undefined {
  if (seen.has(value) || !isNamed(value)) return undefined
  seen.add(value)
  for (const key of depth > 0 ? stateKeys : []) {
    const found = usualState(value.get(key), isTensor, depth - 1, seen)
    if (found) return { ...found, keys: [key, ...found.keys] }
  }
  return [...value.values()].some(isTensor) ? { state: value, keys: [] } : undefined
}

/** State_dicts under any other key; a value that is there under two keys counts once. */
function otherStates(root: ReadonlyMap<string, unknown>, isTensor: Test): FoundState[] {
  const keyOf = new Map<unknown, string>()
  for (const [key, value] of [...root].slice(0, maxEntries)) if (!keyOf.has(value)) keyOf.set(value, key)
  const seen = new Set<unknown>()
  return [...keyOf].flatMap(([value, key]) => {
    const found = otherKeys.test(key) ? undefined : usualState(value, isTensor, 1, seen)
    return found ? [{ ...found, keys: [key, ...found.keys] }] : []
  })
}

/**
 * The state_dict of a checkpoint: itself, or one of its entries.
 * @returns its tensors, and the keys that lead to it
 */
export function findState<T>(
  root: unknown,
  isTensor: (value: unknown) => value is T,
  fail: Fail,
): { state: Map<string, T>; keys: readonly string[] } {
  if (root instanceof Foreign) return fail(notRead(root.name))
  const usual = usualState(root, isTensor, maxDepth)
  const others = !usual && isNamed(root) ? otherStates(root, isTensor) : []
  const found = usual ?? (others.length === 1 ? others[0] : undefined)
  if (!found) return fail(explainNoState(root, others))
  const state = new Map<string, T>()
  for (const [name, value] of found.state) {
    // Modules may keep anything under `_extra_state`, and some programs an epoch or a score among the weights.
    if (isTensor(value)) state.set(name, value)
    else if (value instanceof Foreign && !name.endsWith('_extra_state')) {
      return fail(`its entry ${quoted(name)} is no tensor: ${notRead(value.name)}`)
    }
  }
  return { state, keys: found.keys }
}

function explainNoState(root: unknown, others: readonly FoundState[]): string {
  const list = (keys: readonly string[]) => keys.slice(0, 8).map(quoted).join(', ')
  if (others.length > 1) {
    const keys = others.map((other) => other.keys.join('.'))
    return `it holds the weights of several models, under the keys ${list(keys)}: save the one that is meant by itself`
  }
  if (!isNamed(root)) return "it holds no weights: a state_dict is expected, by itself or under 'model' or 'state_dict'"
  if (root.has('param_groups')) return 'it holds the state of an optimizer and no weights: choose the file of the model'
  const module = stateKeys.map((key) => root.get(key)).find((value) => value instanceof Foreign)
  if (module) return notRead(module.name)
  return `it holds no weights: a state_dict is expected, by itself or under 'model' or 'state_dict'; its keys are ${list([...root.keys()])}`
}
