import { elements, type Shape, sameShape, showShape } from '../engine/shape.js'
import { batchCounterOf } from './layers.js'
import type { SegmentationModel } from './segmentation.js'

/** A tensor as PyTorch lays it out: convolution weights [Cout, Cin / groups, KH, KW]. */
export type StateTensor =
  | { readonly dtype: 'F32'; readonly shape: Shape; readonly data: Float32Array }
  | { readonly dtype: 'I64'; readonly shape: Shape; readonly data: BigInt64Array }

/** [KH, KW, Cin / groups, Cout] as [Cout, Cin / groups, KH, KW]; other ranks stay as they are. */
export function torchShape(shape: Shape): Shape {
  const [kh, kw, cin, cout] = shape
  return kh === undefined || kw === undefined || cin === undefined || cout === undefined ? shape : [cout, cin, kh, kw]
}

/** Values of a weight [KH, KW, Cin / groups, Cout] in the order of [Cout, Cin / groups, KH, KW]. */
export function toTorchLayout(shape: Shape, data: Float32Array): Float32Array {
  return shape.length === 4 ? transposed(data, (shape[0] ?? 0) * (shape[1] ?? 0), shape[2] ?? 0, shape[3] ?? 0) : data
}

/** Values in the order of [Cout, Cin / groups, KH, KW] for a weight of `shape` [KH, KW, Cin / groups, Cout]. */
export function fromTorchLayout(shape: Shape, data: Float32Array): Float32Array {
  return shape.length === 4 ? transposed(data, shape[3] ?? 0, shape[2] ?? 0, (shape[0] ?? 0) * (shape[1] ?? 0)) : data
}

/** [a, b, c] → [c, b, a]. */
function transposed(data: Float32Array, a: number, b: number, c: number): Float32Array {
  const result = new Float32Array(data.length)
  let at = 0
  for (let i = 0; i < a; i++) {
    for (let j = 0; j < b; j++) {
      for (let k = 0; k < c; k++) result[(k * b + j) * a + i] = data[at++] ?? 0
    }
  }
  return result
}

/** Names of a model's state_dict and their shapes in PyTorch's layout. */
export function stateShapes(model: SegmentationModel): Map<string, Shape> {
  const shapes = new Map<string, Shape>()
  for (const { name, spec } of model.store.all()) {
    shapes.set(name, torchShape(spec.shape))
    const counter = batchCounterOf(name)
    if (counter !== undefined) shapes.set(counter, [])
  }
  return shapes
}

const shapesWith = (model: SegmentationModel, prefix: string): Map<string, Shape> =>
  new Map([...stateShapes(model)].filter(([name]) => name.startsWith(prefix)))

/** What a state_dict lacks of the tensors of a model whose names begin with a prefix. Counters may be missing. */
export const missingIn = (model: SegmentationModel, state: ReadonlyMap<string, unknown>, prefix = ''): string[] =>
  [...shapesWith(model, prefix).keys()].filter((name) => !state.has(name) && !model.batchesTracked.has(name))

/**
 * Whether a state_dict is of a model. Counters `num_batches_tracked` may be missing.
 * @param prefix only what bears names that begin so, such as `backbone.`
 * @param shown the name of a tensor for the reader of the error, such as the one that it has in a file
 * @param mayLack whether any tensor may be missing
 * @throws Error that lists what is missing, what is unexpected, and what has another shape or type
 */
export function checkStateDict(
  model: SegmentationModel,
  state: ReadonlyMap<string, StateTensor>,
  prefix = '',
  shown = (name: string): string => name,
  mayLack = false,
): void {
  const shapes = shapesWith(model, prefix)
  const missing = mayLack ? [] : missingIn(model, state, prefix)
  const isCounter = (name: string) => name.endsWith('.num_batches_tracked')
  const unexpected = [...state.keys()]
    .filter((name) => !shapes.has(name))
    .sort((a, b) => Number(isCounter(a)) - Number(isCounter(b)))
  const misshapen: string[] = []
  const mistyped: string[] = []
  for (const [name, { shape, dtype }] of state) {
    const expected = shapes.get(name)
    if (!expected) continue
    const counter = model.batchesTracked.has(name)
    const fits = counter ? elements(shape) === 1 : sameShape(shape, expected)
    if (!fits) misshapen.push(`${shown(name)} ${showShape(shape)} instead of ${showShape(expected)}`)
    else if (dtype !== (counter ? 'I64' : 'F32')) mistyped.push(`${shown(name)} holds ${dtype}`)
  }
  const faults = [
    ...list('missing', missing.map(shown)),
    ...list('unexpected', unexpected.map(shown)),
    ...list('of another shape', misshapen),
    ...list('of another type', mistyped),
  ]
  if (faults.length > 0) throw new Error(`the weights do not fit the model: ${faults.join('; ')}`)
}

/**
 * Gives a model the values of a state_dict; counters that are missing are then 0. Nothing is written where anything does
 * not fit.
 * @param prefix only what bears names that begin so; the rest of the model is left as it is
 * @param shown as for `checkStateDict`
 * @param mayLack as for `checkStateDict`; what is missing is left as it is
 * @throws Error as `checkStateDict`
 */
export function loadStateDict(
  model: SegmentationModel,
  state: ReadonlyMap<string, StateTensor>,
  prefix = '',
  shown?: (name: string) => string,
  mayLack?: boolean,
): void {
  checkStateDict(model, state, prefix, shown, mayLack)
  for (const name of model.batchesTracked.keys()) if (name.startsWith(prefix)) model.batchesTracked.set(name, 0)
  for (const [name, { dtype, data }] of state) {
    if (dtype === 'I64') model.batchesTracked.set(name, Number(data[0] ?? 0))
    else model.store.write(name, fromTorchLayout(model.store.get(name).spec.shape, data))
  }
}

const maxNamed = 5

function list(what: string, names: readonly string[]): string[] {
  if (names.length === 0) return []
  const more = names.length > maxNamed ? ` and ${names.length - maxNamed} more` : ''
  return [`${what}: ${names.slice(0, maxNamed).join(', ')}${more}`]
}

/** The model's values as PyTorch's state_dict has them, in its order. */
export async function stateDict(model: SegmentationModel): Promise<Map<string, StateTensor>> {
  const values = await model.store.readAll()
  const state = new Map<string, StateTensor>()
  for (const [name, shape] of stateShapes(model)) {
    const data = values.get(name)
    if (data instanceof Float32Array) {
      state.set(name, { dtype: 'F32', shape, data: toTorchLayout(model.store.get(name).spec.shape, data) })
    } else {
      const count = BigInt(model.batchesTracked.get(name) ?? 0)
      state.set(name, { dtype: 'I64', shape, data: BigInt64Array.of(count) })
    }
  }
  return state
}
