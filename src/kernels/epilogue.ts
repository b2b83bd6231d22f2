import * as e from '../engine/expr.js'
import type { RowSums } from '../engine/ir.js'
import type { Specialization } from '../engine/shader.js'
import type { Spec } from '../engine/shape.js'
import { loadAsFloat, storedType, type View, viewIn } from './views.js'

/** Index of an operand at channel `n` of `pixel`, in shaders whose uniforms `s` have the extents of the result. */
const indexOf: Record<View, string> = {
  full: 'pixel * s.out_c + n',
  scalar: '0u',
  channel: 'n',
  row: 'pixel',
  sample: 'pixel / (s.out_h * s.out_w)',
  sampleChannel: 'pixel / (s.out_h * s.out_w) * s.out_c + n',
}

/** Formulas of an epilogue in parts: what depends on the channel alone is computed once per channel. */
function splitOf(exprs: readonly e.Expr[], operands: readonly Spec[], result: Spec, results = ['v']) {
  const views = operands.map(({ shape }) => viewIn(result.shape, shape))
  const load = (source: Spec, k: number, index = indexOf[views[k] ?? 'full']) =>
    loadAsFloat(source, `operand${k}`, `(${index})`)
  const isFixed = (index: number) => ['channel', 'scalar'].includes(views[index - results.length] ?? '')
  const hoisted: e.Expr[] = []
  const rests = exprs.map((expr) => {
    const split = e.hoist(expr, isFixed, results.length + operands.length + hoisted.length)
    hoisted.push(...split.hoisted)
    return split.rest
  })
  const fixed = e.wgslStatements(hoisted, [...results.map(() => ''), ...operands.map((source, k) => load(source, k))])
  const names = [...results, ...operands.map((_, k) => `o${k}`), ...hoisted.map((_, k) => `values[${k}]`)]
  const varying = operands.flatMap((source, k) =>
    isFixed(k + results.length) ? [] : [{ source, k, view: views[k] ?? 'full' }],
  )
  const channelValues = `fn channel_values(n: u32) -> array<f32, VALUES> {
${fixed.code}
  return array<f32, VALUES>(${fixed.results.join(', ')});
}`
  const hooks = hoisted.length > 0 ? { channel_values: channelValues } : {}
  return { values: hoisted.length, hooks, rests, names, varying, load }
}

const bindingOf = (k: number, first: number, type: string): string =>
  `@group(0) @binding(${first + k}) var<storage, read> operand${k}: array<${type}>;`

/**
 * Passes what a shader stores through a formula: its constants `Y_BINDING` and `VALUES` and its hooks `channel_values`
 * and `store`.
 *
 * @param expr over the result (input 0) and the operands
 * @param operands bound before the result
 * @param result [N, H, W, C]
 * @param first binding of the first operand
 */
export function storeThrough(expr: e.Expr, operands: readonly Spec[], result: Spec, first: number): Specialization {
  const { values, hooks, rests, names, varying, load } = splitOf([expr], operands, result)
  const stored = e.wgslStatements(rests, names)
  const loads = varying.map(({ source, k }) => `  let o${k} = ${load(source, k)};`)
  const bindings = operands.map((source, k) => bindingOf(k, first, storedType(source)))
  const store = `${bindings.join('\n')}
fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
${loads.join('\n')}
${stored.code}
  y[pixel * s.out_c + n] = U(${stored.results[0]});
}`
  const constants = { Y_BINDING: first + operands.length, ...(values > 0 ? { VALUES: values } : {}) }
  return { constants, hooks: { ...hooks, store } }
}

const isWide = ({ source, view }: { source: Spec; view: View }): boolean => view === 'full' && source.dtype !== 'u8'

/**
 * The same for a shader that stores four channels of a pixel at once, by its hook `store_quad`, into an array of `Y`.
 * Operands that lie as the result does are loaded so, too.
 *
 * @param expr over the result (input 0) and the operands
 * @param result [N, H, W, C], C a multiple of four
 */
export function storeQuads(expr: e.Expr, operands: readonly Spec[], result: Spec, first: number): Specialization {
  const { values, hooks, rests, names, varying, load } = splitOf([expr], operands, result)
  const wide = new Set(varying.filter(isWide).map(({ k }) => k))
  const bindings = operands.map((source, k) => {
    const type = storedType(source)
    return bindingOf(k, first, wide.has(k) ? `vec4<${type}>` : type)
  })
  const quad = (each: (lane: number) => string) => `vec4f(${[0, 1, 2, 3].map(each).join(', ')})`
  const loads = varying.map(({ source, k, view }) => {
    const index = (lane: number) => indexOf[view].replace(/\bn\b/, `(n + ${lane})`)
    const loaded = wide.has(k) ? `vec4f(operand${k}[at])` : quad((lane) => load(source, k, index(lane)))
    return `  let g${k} = ${loaded};`
  })
  const { code, results } = e.wgslStatements(rests, names)
  const parameters = varying.map(({ k }) => `, o${k}: f32`).join('')
  const each = (lane: number) =>
    `epilogue(v[${lane}], values[${lane}]${varying.map(({ k }) => `, g${k}[${lane}]`).join('')})`
  const storeQuad = `${bindings.join('\n')}
fn epilogue(v: f32, values: array<f32, VALUES>${parameters}) -> f32 {
${code}
  return ${results[0]};
}
fn store_quad(pixel: u32, n: u32, v: vec4f, values: array<array<f32, VALUES>, 4>) {
  let at = (pixel * s.out_c + n) / 4;
${loads.join('\n')}
  y[at] = Y(${quad(each)});
}`
  const constants = { Y_BINDING: first + operands.length, ...(values > 0 ? { VALUES: values } : {}) }
  return {
    constants,
    aliases: { Y: `vec4<${storedType(result)}>` },
    hooks: { ...hooks, store: '', store_quad: storeQuad },
  }
}

const lanes = [0, 1, 2, 3, 4, 5, 6, 7]
const partOf = (lane: number): string => `[${Math.floor(lane / 4)}][${lane % 4}]`
/** WGSL of eight values from those of each lane. */
const together = (each: (lane: number) => string): string => `mat2x4f(${lanes.map(each).join(', ')})`

/** Sums over the rows of what is stored; see `RowSums`. */
export interface StoredSums extends Pick<RowSums, 'terms' | 'kept'> {
  readonly operands: readonly Spec[]
}

/**
 * The same for a shader that stores eight channels of a pixel at once, by its hook `store_group`, into an array of 16 bytes
 * each. Operands that lie as the result does are loaded so, too.
 *
 * @param expr undefined: the result is stored as it is
 * @param operands of the formula
 * @param result [N, H, W, C], C a multiple of 8
 * @param sums of the stored result, for a shader with a hook `keep`; their operands are bound behind the formula's, and what
 * is kept of the sums behind the result
 */
export function storeGroups(
  expr: e.Expr | undefined,
  operands: readonly Spec[],
  result: Spec,
  first: number,
  sums?: StoredSums,
): Specialization {
  const all = [...operands, ...(sums?.operands ?? [])]
  const results = sums ? ['v', 'element', 'other'] : ['v']
  const operand = (k: number) => e.input(results.length + k)
  const formula = e.substitute(expr ?? e.input(0), [e.input(0), ...operands.map((_, k) => operand(k))])
  const ofElement = [e.input(1), e.input(2), ...(sums?.operands.map((_, k) => operand(operands.length + k)) ?? [])]
  const terms = sums?.terms.map((term) => e.substitute(term, ofElement)) ?? []
  const { values, hooks, rests, names, varying, load } = splitOf([formula, ...terms], all, result, results)
  const wide = new Set(varying.filter(isWide).map(({ k }) => k))
  const bindings = all.map((source, k) =>
    bindingOf(k, first, !wide.has(k) ? storedType(source) : source.dtype === 'f16' ? 'vec4u' : 'vec4f'),
  )
  type Varying = typeof varying
  const loadOf = ({ source, k, view }: Varying[number]) => {
    if (wide.has(k)) {
      if (source.dtype !== 'f16') return `  let g${k} = mat2x4f(operand${k}[at / 4], operand${k}[at / 4 + 1]);`
      const words = `  let w${k} = operand${k}[at / 8];\n`
      return `${words}  let g${k} = mat2x4f(vec4f(bitcast<vec4h>(w${k}.xy)), vec4f(bitcast<vec4h>(w${k}.zw)));`
    }
    const each = (lane: number) => load(source, k, indexOf[view].replace(/\bn\b/, `(n + ${lane})`))
    return `  let g${k} = ${together(each)};`
  }
  const parameters = (some: Varying) => `values: array<f32, VALUES>${some.map(({ k }) => `, o${k}: f32`).join('')}`
  const given = (some: Varying, lane: number) =>
    `values[${lane}]${some.map(({ k }) => `, g${k}${partOf(lane)}`).join('')}`
  const loads = (some: Varying) => some.map((each) => `${loadOf(each)}\n`).join('')
  const ofFormula = varying.filter(({ k }) => k < operands.length)
  const ofTerms = varying.filter(({ k }) => k >= operands.length)

  const stored = e.wgslStatements(rests.slice(0, 1), names)
  const group = 'pixel: u32, n: u32, low: vec4f, high: vec4f, values: array<array<f32, VALUES>, 8>'
  const stores =
    result.dtype === 'f16'
      ? '  y[at / 8] = vec4u(bitcast<vec2u>(V(v[0])), bitcast<vec2u>(V(v[1])));'
      : '  y[at / 4] = V(v[0]);\n  y[at / 4 + 1] = V(v[1]);'
  const added = e.wgslStatements(rests.slice(1), names)
  // Compilers leave a rounding out whose result is widened again at once, and would sum what is not stored. They cannot where
  // the bits meet a number that they do not know, here 0.
  const element =
    result.dtype === 'f16'
      ? `  let words = vec4u(bitcast<vec2u>(V(v[0])), bitcast<vec2u>(V(v[1]))) ^ vec4u(s.slices - 1u);
  let element = mat2x4f(vec4f(bitcast<vec4h>(words.xy)), vec4f(bitcast<vec4h>(words.zw)));`
      : '  let element = v;'
  const sumsOfGroup = `${element}
${loads(ofTerms)}${lanes.map((lane) => `  let s${lane} = terms_of(element${partOf(lane)}, near${partOf(lane)}, ${given(ofTerms, lane)});`).join('\n')}
${terms.map((_, k) => `  totals[${k}] += ${together((lane) => `s${lane}[${k}]`)};`).join('\n')}
`
  const storeGroup = `${bindings.join('\n')}
fn epilogue(v: f32, ${parameters(ofFormula)}) -> f32 {
${stored.code}
  return ${stored.results[0]};
}
fn result_of(${group}) -> mat2x4f {
  let at = pixel * s.out_c + n;
  let v = mat2x4f(low, high);
${loads(ofFormula)}  return ${together((lane) => `epilogue(v${partOf(lane)}, ${given(ofFormula, lane)})`)};
}
fn store_group(${group}) {
  let at = pixel * s.out_c + n;
  let v = result_of(pixel, n, low, high, values);
${stores}
${sums ? sumsOfGroup : ''}}`
  const binding = first + all.length
  const constants = { Y_BINDING: binding, ...(values > 0 ? { VALUES: values } : {}) }
  if (!sums) return { constants, hooks: { ...hooks, store: '', store_group: storeGroup } }
  const isRelative = e.dependsOn(sums.terms, 1) || e.dependsOn(sums.kept, terms.length)
  const summing = {
    keep: `fn terms_of(element: f32, other: f32, ${parameters(ofTerms)}) -> array<f32, SUMS> {
${added.code}
  return array<f32, SUMS>(${added.results.join(', ')});
}
${keepSums(sums, binding + 1)}`,
    stored_group: `fn stored_group(${group}) -> mat2x4f {
  return result_of(pixel, n, low, high, values);
}`,
  }
  return {
    constants: { ...constants, SUMMING: true, SUMS: terms.length, RELATIVE: isRelative },
    hooks: { ...hooks, store: '', store_group: storeGroup, ...summing },
  }
}

/** The hook `keep`: formulas of the sums of a stretch of rows, into an array [kept, parts, C]. */
function keepSums({ terms, kept }: StoredSums, binding: number): string {
  const { code, results } = e.wgslStatements(kept, [...terms.map((_, k) => `total[${k}]`), 'other', 'rows'])
  const each = (lane: number) =>
    `kept_of(array<f32, SUMS>(${terms.map((_, k) => `totals[${k}]${partOf(lane)}`).join(', ')}), near${partOf(lane)}, rows)`
  const stores = kept.map(
    (_, k) => `  at = ((${k}u * parts + part) * s.out_c + n) / 4;
  kept[at] = vec4f(${[0, 1, 2, 3].map((lane) => `k${lane}[${k}]`).join(', ')});
  kept[at + 1] = vec4f(${[4, 5, 6, 7].map((lane) => `k${lane}[${k}]`).join(', ')});`,
  )
  return `@group(0) @binding(${binding}) var<storage, read_write> kept: array<vec4f>;
fn kept_of(total: array<f32, SUMS>, other: f32, rows: f32) -> array<f32, ${kept.length}> {
${code}
  return array<f32, ${kept.length}>(${results.join(', ')});
}
fn keep(part: u32, parts: u32, n: u32, rows: f32) {
${lanes.map((lane) => `  let k${lane} = ${each(lane)};`).join('\n')}
  var at = 0u;
${stores.join('\n')}
}`
}
