/**
 * The formula language of pointwise operators. One formula gives the WGSL code, the derivative and the value in
 * double precision. All arithmetic is float32 on the device; a comparison gives 1 or 0.
 */
export type Expr =
  | { readonly kind: 'input'; readonly index: number }
  | { readonly kind: 'constant'; readonly value: number }
  | { readonly kind: 'call'; readonly fn: FunctionName; readonly args: readonly Expr[] }

interface FunctionRule {
  /** WGSL of a call, given the WGSL of its arguments; absent for what WGSL has no function for. */
  readonly wgsl?: (...args: string[]) => string
  /** What is computed in place of such a call. */
  readonly expansion?: (...args: Expr[]) => Expr
  readonly value: (...args: number[]) => number
  /** Partial derivatives by argument; absent for functions that are constant almost everywhere. */
  readonly derivatives?: (...args: Expr[]) => readonly (Expr | undefined)[]
}

const functions = {
  add: { wgsl: (a, b) => `(${a} + ${b})`, value: (a, b) => a + b, derivatives: () => [one, one] },
  sub: { wgsl: (a, b) => `(${a} - ${b})`, value: (a, b) => a - b, derivatives: () => [one, constant(-1)] },
  mul: { wgsl: (a, b) => `(${a} * ${b})`, value: (a, b) => a * b, derivatives: (a, b) => [b, a] },
  div: {
    wgsl: (a, b) => `(${a} / ${b})`,
    value: (a, b) => a / b,
    derivatives: (a, b) => [div(one, b), div(mul(constant(-1), a), mul(b, b))],
  },
  exp: { wgsl: (a) => `exp(${a})`, value: Math.exp, derivatives: (a) => [exp(a)] },
  log: { wgsl: (a) => `log(${a})`, value: Math.log, derivatives: (a) => [div(one, a)] },
  erf: {
    expansion: (a) => erfExpansion(a),
    value: (a) => erfValue(a),
    derivatives: (a) => [mul(constant(2 / Math.sqrt(Math.PI)), exp(mul(constant(-1), mul(a, a))))],
  },
  sqrt: { wgsl: (a) => `sqrt(${a})`, value: Math.sqrt, derivatives: (a) => [div(constant(0.5), sqrt(a))] },
  max: {
    wgsl: (a, b) => `max(${a}, ${b})`,
    value: Math.max,
    derivatives: (a, b) => [greaterEqual(a, b), sub(one, greaterEqual(a, b))],
  },
  greater: { wgsl: (a, b) => `select(0f, 1f, ${a} > ${b})`, value: (a, b) => Number(a > b) },
  greaterEqual: { wgsl: (a, b) => `select(0f, 1f, ${a} >= ${b})`, value: (a, b) => Number(a >= b) },
  equal: { wgsl: (a, b) => `select(0f, 1f, ${a} == ${b})`, value: (a, b) => Number(a === b) },
  select: {
    wgsl: (condition, yes, no) => `select(${no}, ${yes}, ${condition} != 0f)`,
    value: (condition, yes, no) => (condition !== 0 ? yes : no),
    derivatives: (condition) => [undefined, where(condition, one, zero), where(condition, zero, one)],
  },
} satisfies Record<string, FunctionRule>

export type FunctionName = keyof typeof functions

const rules: Record<FunctionName, FunctionRule> = functions

export const input = (index: number): Expr => ({ kind: 'input', index })
export const constant = (value: number): Expr => ({ kind: 'constant', value })

const zero = constant(0)
const one = constant(1)
const isConstant = (e: Expr, value: number): boolean => e.kind === 'constant' && e.value === value
const call = (fn: FunctionName, ...args: Expr[]): Expr =>
  args.every((a) => a.kind === 'constant')
    ? constant(rules[fn].value(...args.map((a) => (a.kind === 'constant' ? a.value : 0))))
    : { kind: 'call', fn, args }

export const add = (a: Expr, b: Expr): Expr => (isConstant(a, 0) ? b : isConstant(b, 0) ? a : call('add', a, b))
export const sub = (a: Expr, b: Expr): Expr => (isConstant(b, 0) ? a : call('sub', a, b))
export const mul = (a: Expr, b: Expr): Expr => {
  if (isConstant(a, 0) || isConstant(b, 0)) return zero
  return isConstant(a, 1) ? b : isConstant(b, 1) ? a : call('mul', a, b)
}
export const div = (a: Expr, b: Expr): Expr => (isConstant(b, 1) ? a : call('div', a, b))
export const exp = (a: Expr): Expr => call('exp', a)
export const log = (a: Expr): Expr => call('log', a)
export const sqrt = (a: Expr): Expr => call('sqrt', a)
/** The error function 2/√π ∫₀ᵃ exp(−t²) dt. */
export const erf = (a: Expr): Expr => call('erf', a)
export const max = (a: Expr, b: Expr): Expr => call('max', a, b)
export const greater = (a: Expr, b: Expr): Expr => call('greater', a, b)
export const greaterEqual = (a: Expr, b: Expr): Expr => call('greaterEqual', a, b)
export const equal = (a: Expr, b: Expr): Expr => call('equal', a, b)
/** `yes` where `condition` is not 0, else `no`; the branch not taken may be NaN. */
export const where = (condition: Expr, yes: Expr, no: Expr): Expr => call('select', condition, yes, no)

const polynomial = (x: Expr, coefficients: readonly number[]): Expr =>
  coefficients.reduceRight<Expr>((sum, c) => add(mul(sum, x), constant(c)), zero)

/** (erf(x) − x) / x as a polynomial of x², where |x| ≤ 1: least squares, weighted until the largest error was least. */
const erfBelowOne = [
  0.12837916612625122, -0.3761262595653534, 0.11283600330352783, -0.026854444295167923, 0.005189535208046436,
  -0.0008020841050893068, 0.00007889119297033176,
]

/** −log(1 − erf(x)) / x as a polynomial of x, where 1 ≤ x ≤ 4, behind which erf rounds to 1: fitted in the same way. */
const erfAboveOne = [
  1.128697156906128, 0.6349583268165588, 0.10654910653829575, -0.024025509133934975, 0.003764660330489278,
  -0.00035233216476626694, 0.000014133838703855872,
]

/** erf in float32, to 1.3 units in the last place where the arithmetic is correctly rounded. */
function erfExpansion(x: Expr): Expr {
  const size = max(x, mul(constant(-1), x))
  const below = add(mul(polynomial(mul(x, x), erfBelowOne), x), x)
  const bounded = where(greater(size, constant(4)), constant(4), size)
  const rest = exp(mul(constant(-1), mul(bounded, polynomial(bounded, erfAboveOne))))
  const above = sub(one, rest)
  const signed = where(greater(x, zero), above, mul(constant(-1), above))
  return where(greater(size, one), signed, below)
}

/** erf in double precision: 2/√π exp(−x²) Σ x (2x²)ⁿ / (1·3·…·(2n+1)), whose terms all have the sign of x. */
function erfValue(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x)
  let sum = 0
  for (let term = x, n = 1; sum + term !== sum; n += 2) {
    sum += term
    term *= (2 * x * x) / (n + 2)
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
}

/** The formula, or several, that a function of their inputs describes, such as `formula((x, y) => add(x, y))`. */
export const formula = <R extends Expr | readonly Expr[]>(describe: (...inputs: Expr[]) => R): R =>
  describe(...Array.from({ length: describe.length }, (_, index) => input(index)))

/** Replaces input i by `replacements[i]`, keeping shared parts shared. */
export function substitute(e: Expr, replacements: readonly Expr[]): Expr {
  const done = new Map<Expr, Expr>()
  const visit = (node: Expr): Expr => {
    const known = done.get(node)
    if (known) return known
    const result =
      node.kind === 'input'
        ? (replacements[node.index] ?? node)
        : node.kind === 'constant'
          ? node
          : ({ ...node, args: node.args.map(visit) } satisfies Expr)
    done.set(node, result)
    return result
  }
  return visit(e)
}

/**
 * Splits a formula into the largest parts that depend on fixed inputs alone, and the rest, in which part k is
 * input `first + k`.
 */
export function hoist(e: Expr, isFixed: (index: number) => boolean, first: number): { hoisted: Expr[]; rest: Expr } {
  const hoisted: Expr[] = []
  const fixed = new Map<Expr, boolean>()
  const dependsOnFixedAlone = (node: Expr): boolean => {
    const known = fixed.get(node)
    if (known !== undefined) return known
    const result =
      node.kind === 'call' ? node.args.every(dependsOnFixedAlone) : node.kind === 'constant' || isFixed(node.index)
    fixed.set(node, result)
    return result
  }
  const done = new Map<Expr, Expr>()
  const visit = (node: Expr): Expr => {
    if (node.kind === 'constant') return node
    const known = done.get(node)
    if (known) return known
    const result = dependsOnFixedAlone(node)
      ? input(first + hoisted.push(node) - 1)
      : node.kind === 'call'
        ? { ...node, args: node.args.map(visit) }
        : node
    done.set(node, result)
    return result
  }
  const rest = visit(e)
  return { hoisted, rest }
}

/** d e / d input(index). */
export function derivative(e: Expr, index: number): Expr {
  const done = new Map<Expr, Expr>()
  const visit = (node: Expr): Expr => {
    if (node.kind === 'constant') return zero
    if (node.kind === 'input') return node.index === index ? one : zero
    const known = done.get(node)
    if (known) return known
    const partials = rules[node.fn].derivatives?.(...node.args) ?? []
    let sum: Expr = zero
    for (const [i, arg] of node.args.entries()) {
      const partial = partials[i]
      if (partial) sum = add(sum, mul(visit(arg), partial))
    }
    done.set(node, sum)
    return sum
  }
  return visit(e)
}

/** The value in double precision: the reference of every pointwise operator. */
export const evaluate = (e: Expr, inputs: readonly number[]): number => {
  if (e.kind === 'constant') return e.value
  if (e.kind === 'input') return inputs[e.index] ?? Number.NaN
  return rules[e.fn].value(...e.args.map((a) => evaluate(a, inputs)))
}

/** WGSL float literal with all the digits of a float32. */
export const wgslFloat = (value: number): string => {
  if (!Number.isFinite(value)) throw new RangeError(`a formula cannot hold the constant ${value}`)
  const text = String(Math.fround(value))
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`
}

/**
 * WGSL statements that compute `exprs`, and the names of their results. Shared parts are computed once.
 * `inputs[i]` is the WGSL of input i.
 */
export function wgslStatements(exprs: readonly Expr[], inputs: readonly string[]): { code: string; results: string[] } {
  const lines: string[] = []
  const names = new Map<Expr, string>()
  const visit = (node: Expr): string => {
    if (node.kind === 'constant') return wgslFloat(node.value)
    if (node.kind === 'input') return inputs[node.index] ?? `missing_${node.index}`
    const known = names.get(node)
    if (known) return known
    const { wgsl, expansion } = rules[node.fn]
    if (expansion) {
      const expanded = visit(expansion(...node.args))
      names.set(node, expanded)
      return expanded
    }
    const text = wgsl?.(...node.args.map(visit)) ?? ''
    const name = `t${lines.length}`
    names.set(node, name)
    lines.push(`let ${name} = ${text};`)
    return name
  }
  const results = exprs.map(visit)
  return { code: lines.join('\n'), results }
}

/** Whether one of the formulas holds input `index`. */
export function dependsOn(exprs: readonly Expr[], index: number): boolean {
  const seen = new Set<Expr>()
  const visit = (node: Expr): boolean => {
    if (node.kind !== 'call') return node.kind === 'input' && node.index === index
    if (seen.has(node)) return false
    seen.add(node)
    return node.args.some(visit)
  }
  return exprs.some(visit)
}

/** Number of function calls in formulas, shared ones counted once. */
export function exprSize(exprs: readonly Expr[]): number {
  const calls = new Set<Expr>()
  const visit = (node: Expr): void => {
    if (node.kind !== 'call' || calls.has(node)) return
    calls.add(node)
    const { expansion } = rules[node.fn]
    if (expansion) visit(expansion(...node.args))
    node.args.forEach(visit)
  }
  exprs.forEach(visit)
  return calls.size
}
