import type { Device } from '#dist/engine/device.js'
import { input } from '#dist/engine/expr.js'
import { applyOne } from '#dist/engine/graph.js'
import type { Op, Tensor } from '#dist/engine/ir.js'
import { type CompileOptions, compile } from '#dist/engine/program.js'
import { type Data, isFloat, type Spec, sameShape, showShape, spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { add, cast, castCall, mul, pointwise, sum } from '#dist/kernels/pointwise.js'
import { allowance, type Case, Random } from '../../cases/case.js'
import { type Values, values } from '../../cases/reference/index.js'

/** A case with its inputs drawn and its reference computed. */
export interface Prepared {
  readonly row: Case
  readonly data: Record<string, Data>
  readonly inputs: Record<string, Values>
  readonly expected: Record<string, Values>
  /** Gradients of the loss with respect to the outputs that pass gradients on, by output. */
  readonly cotangents: Record<string, Float32Array<ArrayBuffer>>
  readonly precision: Precision
}

/**
 * What is f16: nothing; inputs, results and gradients; or inputs, of which the results are delivered as f32.
 */
export type Precision = 'single' | 'half' | 'mixed'

/** The value of f16 nearest to x, ties to even. */
function nearestHalf(x: number): number {
  const unit = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(x)))) - 10)
  const steps = x / unit
  const low = Math.floor(steps)
  const up = steps - low > 0.5 || (steps - low === 0.5 && low % 2 !== 0)
  return x === 0 ? 0 : (up ? low + 1 : low) * unit
}

const { op: copyOp, attrs: copyAttrs } = castCall(spec([]), 'f32')
/** A copy that half precision stores as f16, as it does products. */
const productLike: Op = { ...copyOp, precision: 'half' }

/** The same values, which half precision stores as f16, and delivers as f32. */
const narrowed = (x: Tensor): Tensor =>
  applyOne(productLike, [x], { ...(copyAttrs as object), space: x.shape } as never)

/** The outputs of a case of f16 inputs, as the program delivers them or stored as f16. */
function ofHalf(row: Case, inputs: Record<string, Tensor>, precision: Precision): Record<string, Tensor> {
  const mapped = (tensors: Record<string, Tensor>, map: (x: Tensor) => Tensor, full: readonly string[] = []) =>
    Object.fromEntries(
      Object.entries(tensors).map(([name, x]) => [name, isFloat(x) && !full.includes(name) ? map(x) : x]),
    )
  // What a program delivers is f32, so that the results themselves must not be what it delivers.
  const vjp = ({ grads: [dy] }: { grads: readonly (Tensor | undefined)[] }) => [dy && cast(dy, 'f16')]
  const delivered = (x: Tensor): Tensor => pointwise('delivered', [input(0)], [x], { vjp })
  if (precision === 'mixed') return row.run(mapped(inputs, narrowed, row.full))
  return mapped(row.run(mapped(inputs, (x) => cast(x, 'f16'), row.full)), delivered)
}

/** Not those whose results f16 cannot hold, and what updates parameters, which stay f32. */
export const fitsHalf = ({ op, name, state, inputs }: Case): boolean =>
  !state &&
  !(op === 'scale' && name === 'by a large factor') &&
  Object.values(inputs).some(({ spec }) => spec.dtype === 'f32')

/** @param precision unless `single`, the inputs are such as f16 can hold */
export function prepare(row: Case, precision: Precision = 'single'): Prepared {
  const rounded = (array: Data) =>
    precision !== 'single' && array instanceof Float32Array ? array.map(nearestHalf) : array
  const data: Record<string, Data> = {}
  const inputs: Record<string, Values> = {}
  for (const [name, source] of Object.entries(row.inputs)) {
    const fresh = source.draw(new Random(`${row.op}/${row.name}/${name}`))
    const drawn = row.full?.includes(name) ? fresh : rounded(fresh)
    data[name] = drawn
    inputs[name] = values(source.spec.shape, drawn)
  }
  const expected = row.reference(inputs, inputs)
  const cotangents: Record<string, Float32Array<ArrayBuffer>> = {}
  if (row.differentiable) {
    for (const name of row.passing ?? Object.keys(expected)) {
      const random = new Random(`${row.op}/${row.name}/gradient of ${name}`)
      cotangents[name] = rounded(
        new Float32Array(expected[name]?.data.length ?? 0).map(() => random.normal()),
      ) as Float32Array<ArrayBuffer>
    }
  }
  return { row, data, inputs, expected, cotangents, precision }
}

/** Name of the program's input that holds the cotangent of an output. */
const cotangentName = (output: string): string => `gradient of ${output}`

/**
 * The outputs of a traced function, and the gradients of sum(cotangent · output) over the outputs named, under
 * `gradient/<input>`.
 */
export function withGradients(
  tensors: Record<string, Tensor>,
  outputs: Record<string, Tensor>,
  differentiable: readonly string[],
  passing: readonly string[],
): Record<string, Tensor> {
  if (differentiable.length === 0) return outputs
  const at = (record: Record<string, Tensor>, name: string): Tensor => {
    const tensor = record[name]
    if (!tensor) throw new Error(`there is no tensor '${name}'`)
    return tensor
  }
  const terms = passing.map((name) => {
    const output = at(outputs, name)
    return sum(mul(output, at(tensors, cotangentName(name)).reshape(...output.shape)))
  })
  const gradients = grad(
    terms.reduce(add),
    differentiable.map((name) => at(tensors, name)),
  )
  return { ...outputs, ...Object.fromEntries(gradients.map((g, i) => [`gradient/${differentiable[i]}`, g])) }
}

/** Specs of the cotangents' inputs. */
export const cotangentSpecs = (shapes: Record<string, readonly number[]>): Record<string, Spec> =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [cotangentName(name), spec(shape)]))

export const cotangentData = (cotangents: Record<string, Data>): Record<string, Data> =>
  Object.fromEntries(Object.entries(cotangents).map(([name, data]) => [cotangentName(name), data]))

/** Runs a case on the device: its outputs, and its gradients as `gradient/<input>`. */
export async function runCase(
  device: Device,
  { row, data, expected, cotangents, precision }: Prepared,
  options: CompileOptions = {},
): Promise<Map<string, Data>> {
  const shapes = Object.fromEntries(Object.keys(cotangents).map((name) => [name, expected[name]?.shape ?? []]))
  const specs = Object.fromEntries(Object.entries(row.inputs).map(([name, source]) => [name, source.spec]))
  const program = await compile(
    device,
    { ...specs, ...cotangentSpecs(shapes) },
    (tensors: Record<string, Tensor>) => {
      // An operator of any number of tensors must not see the cotangents.
      const own = Object.fromEntries(Object.entries(tensors).filter(([name]) => name in row.inputs))
      const outputs = precision === 'single' ? row.run(own) : ofHalf(row, own, precision)
      for (const [name, tensor] of Object.entries(outputs)) {
        const wanted = expected[name]?.shape ?? []
        if (!sameShape(tensor.shape, wanted)) {
          throw new Error(`output ${name} is ${showShape(tensor.shape)}, the reference ${showShape(wanted)}`)
        }
      }
      return withGradients(tensors, outputs, row.differentiable ?? [], Object.keys(cotangents))
    },
    { label: `${row.op} ${row.name}`, ...(precision === 'single' ? {} : { autocast: castCall }), ...options },
  )
  try {
    await program.runAsync({ ...data, ...cotangentData(cotangents) })
    const names = [...Object.keys(expected), ...(row.differentiable ?? []).map((name) => `gradient/${name}`)]
    const results = await program.readAll(names)
    return new Map(names.map((name, i) => [name, results[i] ?? new Float32Array()]))
  } finally {
    program.destroy()
  }
}

/** Largest absolute value; NaN counts as 0. */
export const largest = (list: ArrayLike<number>): number => {
  let result = 0
  for (let i = 0; i < list.length; i++) result = Math.max(result, Math.abs(list[i] ?? 0) || 0)
  return result
}

/** Largest difference of two lists, and their places; a value that is NaN in one alone differs infinitely. */
export function largestDifference(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): { error: number; at: number } {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, expected ${expected.length}`)
  let worst = { error: 0, at: 0 }
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i] ?? Number.NaN
    const b = expected[i] ?? Number.NaN
    if (Object.is(a, b) || a === b || (Number.isNaN(a) && Number.isNaN(b))) continue
    const difference = Math.abs(a - b)
    const error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
    if (error > worst.error) worst = { error, at: i }
  }
  return worst
}

/** Relative tolerance of a case. */
export const toleranceOf = ({ row, precision }: Pick<Prepared, 'row' | 'precision'>): number =>
  (row.tolerance ?? allowance(row.terms)) + (precision === 'single' ? 0 : (row.halfRoundings ?? 4) * 2 ** -12)

/** Throws where an output of a run differs from the reference by more than the case allows. */
export function compareOutputs(prepared: Prepared, actual: ReadonlyMap<string, Data>, what: string): void {
  const { row, expected } = prepared
  for (const [name, reference] of Object.entries(expected)) {
    const got = actual.get(name) ?? []
    const { error, at } = largestDifference(got, reference.data)
    // Integers have no rounding.
    const exact = row.exact === true || !(got instanceof Float32Array)
    const size = Math.max(largest(reference.data), row.outputScale ?? 0, Number.MIN_VALUE)
    const allowed = exact ? 0 : toleranceOf(prepared) * size
    if (!(error <= allowed)) {
      throw new Error(
        `${row.op}, ${row.name}, ${what}: ${name}[${at}] of ${showShape(reference.shape)} is ${got[at]}, ` +
          `the reference ${reference.data[at]}; off by ${error.toExponential(2)}, allowed ${allowed.toExponential(2)}`,
      )
    }
  }
}

/** Elements of an input whose gradients are checked one by one: all, or a sample. */
const sampled = 24
const defaultStep = 1e-4

/**
 * Throws where a gradient differs from the central difference of the reference in double precision: element by
 * element, and along random directions, which every element of the gradient takes part in.
 */
export function compareGradients(prepared: Prepared, actual: ReadonlyMap<string, Data>): void {
  const { row, inputs } = prepared
  for (const name of row.differentiable ?? []) {
    const gradient = actual.get(`gradient/${name}`) ?? new Float32Array()
    const fail = (where: string, got: number, wanted: number, allowed: number): never => {
      throw new Error(
        `${row.op}, ${row.name}: the gradient of ${name} ${where} is ${got}, by finite differences ${wanted}; ` +
          `allowed ${allowed.toExponential(2)}`,
      )
    }
    const input = inputs[name] ?? values([])
    if (gradient.length !== input.data.length) fail('in length', gradient.length, input.data.length, 0)
    if (row.zeroGradient) {
      if (gradient.some((value) => value !== 0)) fail('at most', largest(gradient), 0, 0)
      continue
    }
    const random = new Random(`${row.op}/${row.name}/directions of ${name}`)
    const tolerance = toleranceOf(prepared)
    const count = input.data.length
    const places =
      count <= sampled ? [...Array(count).keys()] : Array.from({ length: sampled }, () => random.integer(count))
    for (const place of places) {
      const direction = new Float64Array(count)
      direction[place] = 1
      const wanted = directional(prepared, name, direction)
      const got = gradient[place] ?? Number.NaN
      const allowed = tolerance * Math.max(largest(gradient), row.gradientScale ?? 0, Math.abs(wanted)) + 1e-9
      if (!(Math.abs(got - wanted) <= allowed)) fail(`[${place}]`, got, wanted, allowed)
    }
    for (let k = 0; k < 2 && count > sampled; k++) {
      const direction = new Float64Array(count).map(() => (random.uniform() < 0.5 ? -1 : 1))
      const wanted = directional(prepared, name, direction)
      let got = 0
      let sizes = 0
      for (let i = 0; i < count; i++) {
        got += (gradient[i] ?? Number.NaN) * (direction[i] ?? 0)
        sizes += Math.max(Math.abs(gradient[i] ?? 0), row.gradientScale ?? 0)
      }
      const allowed = tolerance * sizes + 1e-9
      if (!(Math.abs(got - wanted) <= allowed)) fail(`along direction ${k}`, got, wanted, allowed)
    }
  }
}

/** Central difference of sum(cotangent · output) along a direction of one input. */
function directional({ row, inputs, cotangents }: Prepared, name: string, direction: Float64Array): number {
  const { step = defaultStep } = row
  const loss = (sign: number): number => {
    const base = inputs[name] ?? values([])
    const moved = { ...base, data: base.data.map((value, i) => value + sign * step * (direction[i] ?? 0)) }
    const outputs = row.reference({ ...inputs, [name]: moved }, inputs)
    let total = 0
    for (const [output, cotangent] of Object.entries(cotangents)) {
      for (const [i, value] of (outputs[output]?.data ?? []).entries()) total += value * (cotangent[i] ?? 0)
    }
    return total
  }
  return (loss(1) - loss(-1)) / (2 * step)
}

/** Throws where two runs of one case differ by more than roundings can explain. */
export function compareRuns(
  prepared: Prepared,
  a: ReadonlyMap<string, Data>,
  b: ReadonlyMap<string, Data>,
  what: string,
): void {
  for (const [name, expected] of a) {
    const got = b.get(name) ?? []
    const { error, at } = largestDifference(got, expected)
    const { gradientScale = 0, outputScale = 0 } = prepared.row
    const scale = name.startsWith('gradient/') ? gradientScale : outputScale
    const allowed = toleranceOf(prepared) * Math.max(largest(expected), scale)
    if (!(error <= allowed)) {
      const { op, name: row } = prepared.row
      throw new Error(`${op}, ${row}: ${name}[${at}] is ${expected[at]}, but ${got[at]} ${what}`)
    }
  }
}
