import { type Expr, exprSize, input, substitute } from './expr.js'
import { type Node, Tensor, valueKey } from './graph.js'
import { dropDead, rebuild, results, type Trace } from './rewrite.js'
import { elements, sameShape } from './shape.js'

/** Beyond this a kernel gains nothing from more arithmetic, and compilers slow down. */
const maxFormulaSize = 64

/**
 * Puts the formula of a pointwise node into the one node that reads it, where that node has a formula itself
 * (a pointwise node or a reduction), so that the value between them is never stored.
 */
export function fusePointwise(trace: Trace, maxInputs: number): Trace {
  const readers = new Map<string, Set<number>>()
  for (const node of trace.nodes) {
    for (const value of node.inputs) {
      const key = valueKey(value)
      readers.set(key, (readers.get(key) ?? new Set()).add(node.id))
    }
  }
  const kept = new Set(results(trace).map(valueKey))
  const mayVanish = (value: Tensor) => !kept.has(valueKey(value)) && readers.get(valueKey(value))?.size === 1
  const fused = rebuild(trace, (node) => {
    let result = node
    // A merged producer brings inputs of its own, so look again until nothing merges.
    for (;;) {
      const next = mergeOne(result, mayVanish, maxInputs)
      if (!next) return result
      result = next
    }
  })
  return dropDead(fused)
}

function mergeOne(node: Node, mayVanish: (value: Tensor) => boolean, maxInputs: number): Node | undefined {
  const formula = node.op?.formula
  if (!formula) return undefined
  const { exprs, space } = formula.get(node.attrs as never)
  for (const value of node.inputs) {
    const producer = value.node
    const inner = producer.op?.formula
    if (!inner?.elementwise || producer.outputs.length !== 1 || value.dtype !== 'f32' || !mayVanish(value)) continue
    if (elements(value.shape) !== elements(space)) continue
    const innerFormula = inner.get(producer.attrs as never)
    const innerInputs = viewedAs(producer.inputs, innerFormula.space, value.shape)
    const innerExpr = innerFormula.exprs[0]
    if (!innerInputs || !innerExpr) continue
    const merged = merge(node.inputs, value, innerInputs, innerExpr, exprs)
    const size = merged.exprs.reduce((sum, e) => sum + exprSize(e), 0)
    // An operand that is updated in place must stay the one it is, at its position.
    const moved = [...(node.op?.inplace?.(node.attrs as never).values() ?? [])].some(
      (index) => merged.inputs[index] !== node.inputs[index],
    )
    if (moved) continue
    if (merged.inputs.length + node.outputs.length > maxInputs || size > maxFormulaSize) continue
    const op = node.op && { ...node.op, name: `${producer.op?.name}+${node.op.name}` }
    const attrs = formula.set(node.attrs as never, merged.exprs, merged.inputs)
    return { ...node, op, inputs: merged.inputs, attrs }
  }
  return undefined
}

/** The inputs of a producer as seen by a reader that reshaped its result; undefined where broadcasting forbids it. */
function viewedAs(inputs: readonly Tensor[], from: readonly number[], to: readonly number[]): Tensor[] | undefined {
  if (sameShape(from, to)) return [...inputs]
  const result: Tensor[] = []
  for (const value of inputs) {
    const count = elements(value.shape)
    if (count !== 1 && count !== elements(from)) return undefined
    result.push(new Tensor(value.node, value.index, count === 1 ? [] : to, value.dtype, value.detached))
  }
  return result
}

function merge(
  outerInputs: readonly Tensor[],
  value: Tensor,
  innerInputs: readonly Tensor[],
  innerExpr: Expr,
  exprs: readonly Expr[],
): { inputs: Tensor[]; exprs: Expr[] } {
  const inputs: Tensor[] = []
  const place = (tensor: Tensor): Expr => {
    const same = (other: Tensor) => valueKey(other) === valueKey(tensor) && sameShape(other.shape, tensor.shape)
    const known = inputs.findIndex(same)
    return input(known >= 0 ? known : inputs.push(tensor) - 1)
  }
  // Inputs that the outer node updates in place must keep their positions, so the outer inputs go first.
  const outer = outerInputs.map((tensor) => (valueKey(tensor) === valueKey(value) ? undefined : place(tensor)))
  const innerPlaced = substitute(innerExpr, innerInputs.map(place))
  const replacements = outer.map((expr) => expr ?? innerPlaced)
  return { inputs, exprs: exprs.map((e) => substitute(e, replacements)) }
}
