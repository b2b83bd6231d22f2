import { Float16Array } from '@petamoriken/float16'
import type { Device } from '#dist/engine/device.js'
import { gradients } from '#dist/engine/grad.js'
import { assign, read, tracedGraph } from '#dist/engine/graph.js'
import { type Tensor, valueKey } from '#dist/engine/ir.js'
import { kernelSelectionOf, setKernelSelection } from '#dist/engine/kernel-selection.js'
import { compile } from '#dist/engine/program.js'
import { byteLength, type Data, type Shape, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import { add, fill } from '#dist/kernels/pointwise.js'
import { type Case, floats, Random, type Source } from '../cases/case.js'

/** `training`: the output that is differentiated, and its gradients. */
export type Pass = 'forward' | 'backward' | 'training'

/** A case of the table, ready to be run over and over. */
export interface Operator {
  /** The kernels that were chosen among several, or the only one. */
  readonly kernel: string
  /** The fewest bytes possible: what it needs of what it is given, and what it returns, each counted once. */
  readonly bytes: number
  /** Numbers among the attributes of the operator that gives the first output, such as stride and padding. */
  readonly attributes: Readonly<Record<string, number>>
  /** What the variables held at first; `cotangent` is what a gradient starts from. */
  readonly inputs: ReadonlyMap<string, { readonly shape: Shape; readonly data: Data }>
  /** Shapes of what it returns. */
  readonly results: Readonly<Record<string, Shape>>
  /** Submits one run. */
  run(): void
  /** What the last run returned. */
  read(name: string): Promise<Data>
  destroy(): void
}

/** Passes of a case that are worth a row: a product's gradients are products, which have rows of their own. */
export const passesOf = (row: Case): Pass[] =>
  row.differentiable && row.flops === undefined ? ['forward', 'backward'] : ['forward']

/** Products, which half precision computes in f16. */
export const isProduct = (row: Case): boolean => row.flops !== undefined

/** Chooses as the device does, and keeps the names of what was chosen, those of an operator with a star. */
function recordChoices(device: Device, op: string, kernels: Set<string>): { restore: () => void } {
  const selection = kernelSelectionOf(device)
  setKernelSelection(device, async (trace) => {
    const select = await selection(trace)
    return async (node, candidates) => {
      const chosen = await select(node, candidates)
      if (chosen) kernels.add(node.name === op ? `* ${chosen.name}` : chosen.name)
      return chosen
    }
  })
  return { restore: () => setKernelSelection(device, selection) }
}

/**
 * Compiles one pass of a case. Its tensors live in variables, so that nothing is uploaded between the runs.
 * @param half what it is given is f16
 */
export async function openOperator(device: Device, row: Case, pass: Pass, half = false): Promise<Operator> {
  const store = new Store(device, `${row.op} ${row.name}`)
  const kernels = new Set<string>()
  const drawn = new Map<string, { shape: Shape; data: Data }>()
  const declare = (name: string, source: Source) => {
    const data = source.draw(new Random(`${row.op}/${row.name}/${name}`))
    drawn.set(name, { shape: source.spec.shape, data })
    if (!half || source.spec.dtype !== 'f32' || row.full?.includes(name)) return store.declare(name, source.spec, data)
    return store.declare(name, spec(source.spec.shape, 'f16'), new Uint16Array(new Float16Array(data).buffer))
  }
  let attributes: Record<string, number> = {}
  let results: Record<string, Tensor> = {}
  const body = () => {
    const inputs = Object.entries(row.inputs).map(([name, source]) => [name, read(declare(name, source))] as const)
    const tensors = Object.fromEntries(inputs)
    const outputs = row.run(tensors)
    attributes = numbersOf(Object.values(outputs)[0]?.node.attrs)
    results = pass === 'forward' ? outputs : backward(row, tensors, outputs, declare, pass === 'training')
    const state = pass === 'forward' ? Object.entries(row.state ?? {}) : []
    for (const [name, variable] of state) {
      const value = outputs[name]
      if (value) assign(store.get(variable), value)
    }
    return state.length > 0 ? {} : results
  }
  const recording = recordChoices(device, row.op, kernels)
  try {
    const program = await compile(device, {}, body, { label: `${row.op} ${row.name}` })
    // A gradient need not read everything that the operator reads.
    const needed = program.nodes.flatMap(({ leaf }) => (leaf && 'variable' in leaf ? leaf.variable.spec : []))
    const returned = new Map(Object.values(results).map((value) => [valueKey(value), value]))
    const own = [...kernels].filter((name) => name.startsWith('* ')).map((name) => name.slice(2))
    return {
      kernel: (own.length > 0 ? own : [...kernels]).join(', '),
      bytes: [...needed, ...returned.values()].reduce((sum, each) => sum + byteLength(each), 0),
      attributes,
      inputs: drawn,
      results: Object.fromEntries(Object.entries(results).map(([name, { shape }]) => [name, shape])),
      run: () => program.run({}),
      async read(name) {
        const [data] = await program.readAll([name])
        if (!data) throw new Error(`${row.op} has no result '${name}'`)
        return data
      },
      destroy() {
        program.destroy()
        store.destroy()
      },
    }
  } catch (error) {
    store.destroy()
    throw error
  } finally {
    recording.restore()
  }
}

const numbersOf = (attributes: unknown): Record<string, number> =>
  Object.fromEntries(
    Object.entries(attributes ?? {}).flatMap(([name, value]) => (typeof value === 'number' ? [[name, value]] : [])),
  )

/** The gradients: without the output itself, only what they need of the forward pass is computed. */
function backward(
  row: Case,
  tensors: Record<string, Tensor>,
  outputs: Record<string, Tensor>,
  declare: (name: string, source: Source) => Variable,
  withOutput: boolean,
): Record<string, Tensor> {
  const name = row.passing?.[0] ?? Object.keys(outputs)[0] ?? ''
  const from = outputs[name]
  const targets = (row.differentiable ?? []).flatMap((target) => tensors[target] ?? [])
  if (!from) throw new Error(`${row.op} has no output '${name}'`)
  const seed = read(
    declare(
      'cotangent',
      floats(from.shape, (random) => random.uniform()),
    ),
  )
  const zero = (like: Tensor) => fill(like.shape, 0)
  const results = gradients(tracedGraph('bench'), from, targets, { seed, sum: add, zero })
  const named = results.map((gradient, i) => [`gradient of ${row.differentiable?.[i]}`, gradient] as const)
  return Object.fromEntries([...(withOutput ? [[name, from] as const] : []), ...named])
}
