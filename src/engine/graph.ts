import { type Leaf, type Node, type Op, Tensor, type Trace } from './ir.js'
import { elements, type Spec, showSpec, spec } from './shape.js'
import type { Variable } from './store.js'

/** What a traced function did: nodes in the order of the calls, and the last value given to each variable. */
export class Graph {
  readonly nodes: Node[] = []
  readonly inputs = new Map<string, Tensor>()
  readonly assigned = new Map<Variable, Tensor>()
  private readonly reads = new Map<Variable, Tensor>()
  private scope = ''
  private backward = false

  append(call: Pick<Node, 'op' | 'leaf' | 'name' | 'inputs' | 'attrs' | 'outputs'>): Tensor[] {
    const node: Node = { ...call, id: this.nodes.length, scope: this.scope, backward: this.backward }
    this.nodes.push(node)
    return node.outputs.map(({ shape, dtype }, index) => new Tensor(node, index, shape, dtype))
  }

  private leaf(name: string, leaf: Leaf, { shape, dtype }: Spec): Tensor {
    const outputs = [spec(shape, dtype)]
    const [tensor] = this.append({ op: undefined, leaf, name, inputs: [], attrs: undefined, outputs })
    if (!tensor) throw new Error('unreachable: a leaf has one output')
    return tensor
  }

  input(name: string, spec: Spec): Tensor {
    const tensor = this.leaf(`input ${name}`, { input: name }, spec)
    this.inputs.set(name, tensor)
    return tensor
  }

  read(variable: Variable): Tensor {
    const known = this.assigned.get(variable) ?? this.reads.get(variable)
    if (known) return known
    const tensor = this.leaf(`variable ${variable.name}`, { variable }, variable.spec)
    this.reads.set(variable, tensor)
    return tensor
  }

  scoped<T>(name: string, body: () => T): T {
    return this.within(this.scope === '' ? name : `${this.scope}.${name}`, this.backward, body)
  }

  /** `body` differentiates a node. */
  differentiating<T>({ scope }: Node, body: () => T): T {
    return this.within(scope, true, body)
  }

  private within<T>(scope: string, backward: boolean, body: () => T): T {
    const outer = [this.scope, this.backward] as const
    this.scope = scope
    this.backward = backward
    try {
      return body()
    } finally {
      ;[this.scope, this.backward] = outer
    }
  }
}

let current: Graph | undefined

/** Runs `body` with `graph` receiving every operator called in it. */
export function tracing<T>(graph: Graph, body: () => T): T {
  const outer = current
  current = graph
  try {
    return body()
  } finally {
    current = outer
  }
}

/** The trace in progress. Throws where there is none. */
export function tracedGraph(what: string): Graph {
  if (!current)
    throw new Error(`${what} was called outside compile(): operators describe a program, they do not run at once`)
  return current
}

/** The current value of a variable within the traced function. */
export const read = (variable: Variable): Tensor => tracedGraph(`read('${variable.name}')`).read(variable)

/** Gives a variable a new value: later reads of the trace see it, and the store holds it when the run ends. */
export function assign(variable: Variable, value: Tensor): void {
  const graph = tracedGraph(`assign('${variable.name}')`)
  if (elements(value.shape) !== elements(variable.spec.shape) || value.dtype !== variable.spec.dtype) {
    throw new Error(`assign: variable '${variable.name}' is ${showSpec(variable.spec)}, the value ${showSpec(value)}`)
  }
  graph.assigned.set(variable, value)
}

/** Names the layer that the operators called in `body` belong to, for error messages and profiles. */
export const scoped = <T>(name: string, body: () => T): T => tracedGraph(`scoped('${name}')`).scoped(name, body)

/** Where the code of the engine and of the operators lies. Bundlers would put files beside the page for a `new URL`. */
const root = String(import.meta.url).replace(/[^/]*\/[^/]*$/, '')
const ownFolders = ['engine/', 'kernels/'].map((folder) => root + folder)

/** The line of the user's code that called an operator. */
function callerLine(): string {
  const frames = (new Error().stack ?? '').split('\n').slice(1)
  const outside = frames.find((line) => !ownFolders.some((folder) => line.includes(folder)))
  return outside ? outside.trim().replace(/^at /, '') : 'unknown place'
}

/**
 * Calls an operator within a traced function. Throws an Error that names the operator, the shapes and the caller.
 * @param name what to call it, where that says more than the operator's own name
 */
export function apply<A>(op: Op<A>, inputs: readonly Tensor[], attrs: A, name = op.name): Tensor[] {
  const graph = tracedGraph(name)
  const specs = inputs.map(({ shape, dtype }) => spec(shape, dtype))
  let outputs: readonly Spec[]
  try {
    outputs = op.shape(specs, attrs)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`${name}(${specs.map(showSpec).join(', ')}): ${reason} (called from ${callerLine()})`)
  }
  return graph.append({ op: op as Op, name, inputs, attrs, outputs })
}

/** `apply` for operators with one output. */
export function applyOne<A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor {
  const [result] = apply(op, inputs, attrs)
  if (!result) throw new Error(`${op.name} has no output`)
  return result
}

/** What a graph has recorded, with what is to be delivered of it. */
export const traceOf = (graph: Graph, outputs: ReadonlyMap<string, Tensor>): Trace => ({
  nodes: graph.nodes,
  inputs: graph.inputs,
  outputs,
  assigned: graph.assigned,
})
