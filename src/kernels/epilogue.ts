import * as e from '../engine/expr.js'
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

/** A formula of an epilogue in parts: what depends on the channel alone is computed once per channel. */
function splitOf(expr: e.Expr, operands: readonly Spec[], result: Spec) {
  const views = operands.map(({ shape }) => viewIn(result.shape, shape))
  const load = (source: Spec, k: number, index = indexOf[views[k] ?? 'full']) =>
    loadAsFloat(source, `operand${k}`, `(${index})`)
  const isFixed = (index: number) => ['channel', 'scalar'].includes(views[index - 1] ?? '')
  const { hoisted, rest } = e.hoist(expr, isFixed, operands.length + 1)
  const fixed = e.wgslStatements(hoisted, ['', ...operands.map((source, k) => load(source, k))])
  const names = [...operands.map((_, k) => `o${k}`), ...hoisted.map((_, k) => `values[${k}]`)]
  const stored = e.wgslStatements([rest], ['v', ...names])
  const varying = operands.flatMap((source, k) => (isFixed(k + 1) ? [] : [{ source, k, view: views[k] ?? 'full' }]))
  const channelValues = `fn channel_values(n: u32) -> array<f32, VALUES> {
${fixed.code}
  return array<f32, VALUES>(${fixed.results.join(', ')});
}`
  const hooks = hoisted.length > 0 ? { channel_values: channelValues } : {}
  return { values: hoisted.length, hooks, stored, varying, load }
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
  const { values, hooks, stored, varying, load } = splitOf(expr, operands, result)
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

const lanes = [0, 1, 2, 3, 4, 5, 6, 7]

/**
 * The same for a shader that stores eight channels of a pixel at once, by its hook `store_group`, into an array of 16 bytes
 * each. Operands that lie as the result does are loaded so, too.
 *
 * @param expr undefined: the result is stored as it is
 * @param result [N, H, W, C], C a multiple of 8
 */
export function storeGroups(
  expr: e.Expr | undefined,
  operands: readonly Spec[],
  result: Spec,
  first: number,
): Specialization {
  const { values, hooks, stored, varying, load } = splitOf(expr ?? e.input(0), operands, result)
  const isWide = ({ source, view }: { source: Spec; view: View }) => view === 'full' && source.dtype !== 'u8'
  const wide = new Set(varying.filter(isWide).map(({ k }) => k))
  const bindings = operands.map((source, k) =>
    bindingOf(k, first, !wide.has(k) ? storedType(source) : source.dtype === 'f16' ? 'vec4u' : 'vec4f'),
  )
  const loads = varying.map(({ source, k, view }) => {
    if (wide.has(k)) {
      if (source.dtype !== 'f16') return `  let g${k} = mat2x4f(operand${k}[at / 4], operand${k}[at / 4 + 1]);`
      const words = `  let w${k} = operand${k}[at / 8];\n`
      return `${words}  let g${k} = mat2x4f(vec4f(bitcast<vec4h>(w${k}.xy)), vec4f(bitcast<vec4h>(w${k}.zw)));`
    }
    const each = lanes.map((lane) => load(source, k, indexOf[view].replace(/\bn\b/, `(n + ${lane})`)))
    return `  let g${k} = mat2x4f(${each.join(', ')});`
  })
  const parameters = varying.map(({ k }) => `, o${k}: f32`).join('')
  const partOf = (lane: number) => `[${Math.floor(lane / 4)}][${lane % 4}]`
  const computed = lanes.map((lane) => {
    const own = varying.map(({ k }) => `, g${k}${partOf(lane)}`).join('')
    return `epilogue(v${partOf(lane)}, values[${lane}]${own})`
  })
  const store =
    result.dtype === 'f16'
      ? '  y[at / 8] = vec4u(bitcast<vec2u>(V(low_out)), bitcast<vec2u>(V(high_out)));'
      : '  y[at / 4] = V(low_out);\n  y[at / 4 + 1] = V(high_out);'
  const storeGroup = `${bindings.join('\n')}
fn epilogue(v: f32, values: array<f32, VALUES>${parameters}) -> f32 {
${stored.code}
  return ${stored.results[0]};
}
fn store_group(pixel: u32, n: u32, low: vec4f, high: vec4f, values: array<array<f32, VALUES>, 8>) {
  let at = pixel * s.out_c + n;
  let v = mat2x4f(low, high);
${loads.join('\n')}
  let low_out = vec4f(${computed.slice(0, 4).join(', ')});
  let high_out = vec4f(${computed.slice(4).join(', ')});
${store}
}`
  const constants = { Y_BINDING: first + operands.length, ...(values > 0 ? { VALUES: values } : {}) }
  return { constants, hooks: { ...hooks, store: '', store_group: storeGroup } }
}
