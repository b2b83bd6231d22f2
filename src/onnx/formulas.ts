import type { Expr, FunctionName } from '../engine/expr.js'
import type { Node } from '../engine/ir.js'
import { valueText } from '../engine/value-text.js'
import { evaluationFormula } from '../kernels/batchnorm.js'
import { asMap, type Emit, type Emitter, type Value } from './emitter.js'
import { type Extent, inputsOf, sameExtent, type Twin } from './twin.js'

/** Functions of formulas whose counterparts take and give floats. */
const operators: Partial<Record<FunctionName, string>> = {
  add: 'Add',
  sub: 'Sub',
  mul: 'Mul',
  div: 'Div',
  exp: 'Exp',
  log: 'Log',
  erf: 'Erf',
  sqrt: 'Sqrt',
  max: 'Max',
}

/** Those that compare: 1 or 0 in a formula, a boolean in ONNX. */
const comparisons: Partial<Record<FunctionName, string>> = {
  greater: 'Greater',
  greaterEqual: 'GreaterOrEqual',
  equal: 'Equal',
}

/** Element types of ONNX. */
const [FLOAT, BOOL] = [1, 9]

/** The formula of a node, over its inputs; undefined where it does not compute one result per element. */
export function formulaOf({ op, attrs }: Node): { readonly expr: Expr; readonly space: readonly number[] } | undefined {
  if (!op?.formula?.elementwise) return undefined
  const { exprs, space } = op.formula.get(attrs as never)
  const [expr] = exprs
  return expr && exprs.length === 1 ? { expr, space } : undefined
}

const isSame = (x: Expr, y: Expr): boolean => valueText(x) === valueText(y)

/** Emits a pointwise call: batch normalisation and ReLU as what they are, all else function by function. */
export const emitFormula: Emit = (emitter, node, name) =>
  emitBatchNorm(emitter, node, name) ?? emitSteps(emitter, node, name)

function emitBatchNorm(emitter: Emitter, node: Twin<Node>, name: string): Value | undefined {
  const expr = formulaOf(node.a)?.expr
  const epsilon = expr && constantsOf(expr)[0]
  if (!expr || epsilon === undefined || !isSame(expr, evaluationFormula(epsilon))) return undefined
  const [x, ...parameters] = inputsOf(node)
  if (x?.a.shape.length !== 4 || parameters.some(({ a }) => a.shape.length !== 1)) return undefined
  const map = emitter.channelsFirst(emitter.value(x))
  const names = parameters.map((parameter) => emitter.value(parameter).name)
  const attributes = epsilon === 1e-5 ? {} : { epsilon: { float: epsilon } }
  return emitter.node(name, 'BatchNormalization', [map.name, ...names], map, attributes)
}

function constantsOf(expr: Expr): number[] {
  if (expr.kind === 'constant') return [expr.value]
  return expr.kind === 'call' ? expr.args.flatMap(constantsOf) : []
}

/** The formula function by function. */
function emitSteps(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const formulas = { a: formulaOf(node.a), b: formulaOf(node.b) }
  if (!formulas.a || !formulas.b) throw new Error(`${name}: a formula with several results has no counterpart in ONNX`)
  if (!isSame(formulas.a.expr, formulas.b.expr)) {
    throw new Error(
      `${name}: its constants follow from the size of the image, without counterpart yet: export it for one size`,
    )
  }
  const operands = emitter.inputs(node)
  const channelsFirst = operands.some((operand) => operand.channelsFirst)
  const space = formulas.a.space.map((extent, axis): Extent => [extent, formulas.b?.space[axis] ?? 0])
  const extents = channelsFirst ? asMap(space).extents : space
  const aligned = operands.map((operand) => (channelsFirst ? alignedWithMap(emitter, operand) : operand))
  const result = { extents: broadcast(aligned, extents.length), channelsFirst }
  const writer = new FormulaWriter(emitter, name, aligned)
  const made = { ...result, name: writer.value(formulas.a.expr, true) }
  const isWhole = extents.every((extent, axis) => sameExtent(extent, result.extents[axis]))
  if (isWhole) return made
  const shape = emitter.shape(name, extents, aligned)
  return emitter.node(emitter.unique(`${name}/expand`), 'Expand', [made.name, shape], { extents, channelsFirst })
}

/** An operand so that it broadcasts to a map [N, C, H, W] as it did to [N, H, W, C]. */
function alignedWithMap(emitter: Emitter, operand: Value): Value {
  const rank = operand.extents.length
  if (operand.channelsFirst || operand.extents.every(([a, b]) => a === 1 && b === 1)) return operand
  if (rank === 4) return emitter.channelsFirst(operand)
  const unsqueeze = (axes: readonly number[], extents: readonly Extent[]) =>
    emitter.node(emitter.unique(`${operand.name}/unsqueeze`), 'Unsqueeze', [operand.name, emitter.integers(axes)], {
      extents,
      channelsFirst: false,
    })
  const one: Extent = [1, 1]
  if (rank === 1) return unsqueeze([1, 2], [...operand.extents, one, one])
  const missing = Array.from({ length: 4 - rank }, (_, axis) => axis)
  return emitter.channelsFirst(unsqueeze(missing, [...missing.map(() => one), ...operand.extents]))
}

/** The extents of operands together, as far as they reach. */
function broadcast(operands: readonly Value[], rank: number): Extent[] {
  const ofAxis = (axis: number): Extent => {
    const all = operands.map(({ extents }) => extents[axis - (rank - extents.length)] ?? ([1, 1] as const))
    return all.find(([a, b]) => a !== 1 || b !== 1) ?? [1, 1]
  }
  return Array.from({ length: rank }, (_, axis) => ofAxis(axis))
}

/** Writes one node per function of a formula, the last one under the name of the call. */
class FormulaWriter {
  private readonly known = new Map<Expr, string>()

  constructor(
    private readonly emitter: Emitter,
    private readonly name: string,
    private readonly operands: readonly Value[],
  ) {}

  /** Name of a part's value as floats. */
  value(expr: Expr, isLast = false): string {
    if (expr.kind === 'constant') return this.emitter.scalar(expr.value)
    if (expr.kind === 'input') return this.operands[expr.index]?.name ?? ''
    const known = this.known.get(expr)
    if (known !== undefined) return known
    const made = this.call(expr, isLast ? this.name : this.emitter.unique(`${this.name}/${expr.fn}`))
    this.known.set(expr, made)
    return made
  }

  private call(expr: Expr & { kind: 'call' }, name: string): string {
    const { fn, args } = expr
    const { graph } = this.emitter
    const [condition, yes, no] = args
    if (fn === 'select' && condition && yes && no) {
      if (isRelu(condition, yes, no)) return graph.node(name, 'Relu', [this.value(yes)])
      return graph.node(name, 'Where', [this.condition(condition), this.value(yes), this.value(no)])
    }
    const op = operators[fn]
    if (op)
      return graph.node(
        name,
        op,
        args.map((arg) => this.value(arg)),
      )
    return graph.node(name, 'Cast', [this.condition(expr)], { to: FLOAT })
  }

  /** Name of a part's value as a boolean: whether it is not 0. */
  private condition(expr: Expr): string {
    const name = this.emitter.unique(`${this.name}/condition`)
    const { graph } = this.emitter
    if (expr.kind !== 'call') return graph.node(name, 'Cast', [this.value(expr)], { to: BOOL })
    const op = comparisons[expr.fn]
    if (op)
      return graph.node(
        name,
        op,
        expr.args.map((arg) => this.value(arg)),
      )
    if (operators[expr.fn] || expr.fn === 'select') return graph.node(name, 'Cast', [this.value(expr)], { to: BOOL })
    throw new Error(`${this.name}: the function ${expr.fn} has no counterpart in ONNX yet`)
  }
}

/** x where x is greater than 0, else 0. */
const isRelu = (condition: Expr, yes: Expr, no: Expr): boolean =>
  isZero(no) &&
  condition.kind === 'call' &&
  condition.fn === 'greater' &&
  condition.args[0] !== undefined &&
  isSame(condition.args[0], yes) &&
  condition.args[1] !== undefined &&
  isZero(condition.args[1])

const isZero = (expr: Expr): boolean => expr.kind === 'constant' && expr.value === 0
