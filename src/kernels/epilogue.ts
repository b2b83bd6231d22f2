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

/**
 * Passes what a shader stores through a formula: its constants `Y_BINDING` and `VALUES` and its hooks `channel_values`
 * and `store`. What depends on the channel alone is computed once per channel.
 *
 * @param expr over the result (input 0) and the operands
 * @param operands bound before the result
 * @param result [N, H, W, C]
 * @param first binding of the first operand
 */
export function storeThrough(expr: e.Expr, operands: readonly Spec[], result: Spec, first: number): Specialization {
  const views = operands.map(({ shape }) => viewIn(result.shape, shape))
  const load = ({ dtype, shape }: Spec, k: number) =>
    loadAsFloat({ dtype, shape }, `operand${k}`, `(${indexOf[views[k] ?? 'full']})`)
  const isFixed = (index: number) => ['channel', 'scalar'].includes(views[index - 1] ?? '')
  const split = e.hoist(expr, isFixed, operands.length + 1)
  const fixed = e.wgslStatements(split.hoisted, ['', ...operands.map(load)])
  const names = [...operands.map((_, k) => `o${k}`), ...split.hoisted.map((_, k) => `values[${k}]`)]
  const stored = e.wgslStatements([split.rest], ['v', ...names])
  const loads = operands.flatMap((source, k) => (isFixed(k + 1) ? [] : [`  let o${k} = ${load(source, k)};`]))
  const bindings = operands.map(
    (source, k) => `@group(0) @binding(${first + k}) var<storage, read> operand${k}: array<${storedType(source)}>;`,
  )
  const store = `${bindings.join('\n')}
fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
${loads.join('\n')}
${stored.code}
  y[pixel * s.out_c + n] = U(${stored.results[0]});
}`
  const constants = { Y_BINDING: first + operands.length }
  if (split.hoisted.length === 0) return { constants, hooks: { store } }
  const channelValues = `fn channel_values(n: u32) -> array<f32, VALUES> {
${fixed.code}
  return array<f32, VALUES>(${fixed.results.join(', ')});
}`
  return { constants: { ...constants, VALUES: split.hoisted.length }, hooks: { store, channel_values: channelValues } }
}
