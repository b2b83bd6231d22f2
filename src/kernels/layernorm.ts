import * as e from '../engine/expr.js'
import { apply } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { type Candidate, ceilDiv, flatGrid, floatBits, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { bySample } from './arrangement.js'
import { mul, pointwise, sub, sumAllTo } from './pointwise.js'
import * as shaders from './shaders.generated.js'
import { packed, packTypes, shader } from './shaders.js'

export interface LayerNormAttrs {
  readonly eps: number
}

/** Threads that share a row, of the 64 of a workgroup. */
function rowsKernel(x: Spec, eps: number, lanes: number): Candidate {
  const channels = x.shape.at(-1) ?? 1
  const rows = elements(x.shape) / channels
  const { pack, packs } = packed(channels)
  const { T, V } = packTypes(pack, x, spec([]))
  const hooks = pack === 4 ? { sum_of_pack: sumOfFour } : {}
  const grid = flatGrid(ceilDiv(rows, 64 / lanes))
  return {
    name: lanes === 1 ? 'thread' : `${lanes} lanes`,
    dispatches: [
      {
        label: 'layerNorm statistics',
        source: shader(shaders.layernorm_statistics, { constants: { LANES: lanes }, aliases: { T, V }, hooks }),
        reads: [inputBuffer(0)],
        writes: [outputBuffer(0), outputBuffer(1)],
        uniforms: [rows, packs, floatBits(1 / channels), floatBits(eps), grid[0]],
        grid,
      },
    ],
  }
}

const sumOfFour = 'fn sum_of_pack(pack: V) -> f32 {\n  return dot(pack, vec4f(1));\n}'

/** x → mean and 1 / standard deviation of each row. */
const statisticsOp = defineOp<LayerNormAttrs>('layerNormStatistics', {
  precision: 'wide',
  divide: bySample(),
  shape: ([x = spec([])]) => {
    if (x.shape.length === 0 || x.shape.at(-1) === 0) throw new Error('there is no last axis to normalise over')
    return Array(2).fill(spec([...x.shape.slice(0, -1), 1]))
  },
  kernel: ({ inputs: [x = spec([])], attrs: { eps }, adapter }) => {
    const { packs } = packed(x.shape.at(-1) ?? 1)
    const shared = [8, 32].filter((lanes, i) => i === 0 || packs >= lanes).map((lanes) => rowsKernel(x, eps, lanes))
    const alone = rowsKernel(x, eps, 1)
    // On a CPU driver a barrier costs as much as dozens of loads; on a GPU neighbouring lanes load what lies together.
    return adapter.software ? [alone, ...shared] : [...shared.reverse(), alone]
  },
})

/** Of x, mean, 1 / standard deviation, weight and bias. */
export const layerNormFormula = e.formula((x, mean, inverse, weight, bias) =>
  e.add(e.mul(e.mul(e.sub(x, mean), inverse), weight), bias),
)

/**
 * Layer normalisation over the last axis, as `torch.nn.LayerNorm`: (x − mean) / √(variance + eps) · weight + bias, of the
 * biased variance of each row.
 *
 * @param x [..., C]
 * @param weight [C]
 * @param bias [C]
 */
export function layerNorm(
  x: Tensor,
  { weight, bias }: { readonly weight: Tensor; readonly bias: Tensor },
  { eps = 1e-5 }: { eps?: number } = {},
): Tensor {
  const channels = x.shape.at(-1)
  const wrong = [weight, bias].find(({ shape }) => shape.length !== 1 || shape[0] !== channels)
  if (wrong)
    throw new Error(`layerNorm: weight and bias must be [${channels}] for x [${x.shape}], not [${wrong.shape}]`)
  const [mean, inverse] = apply(statisticsOp, [x], { eps })
  if (!mean || !inverse) throw new Error('unreachable: the statistics are two')
  return pointwise('layerNorm', [layerNormFormula], [x, mean.detach(), inverse.detach(), weight, bias], {
    // The mean and the deviation depend on x too, which the derivative of the formula alone would miss.
    vjp: ({ grads: [dy], wanted }) => {
      if (!dy) return []
      const deviation = mul(sub(x, mean), inverse)
      const [dBias, dWeight] = wanted[3] || wanted[4] ? sumAllTo([dy, mul(dy, deviation)], weight.shape) : []
      return [wanted[0] ? inputGradient(dy, x, mean, inverse, weight) : undefined, undefined, undefined, dWeight, dBias]
    },
  })
}

/** dx = (g − mean(g) − x̂ · mean(g · x̂)) / deviation, with g = weight · dy and x̂ the normalised row. */
function inputGradient(dy: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor): Tensor {
  const scaled = mul(dy, weight)
  const [total, along] = sumAllTo([scaled, mul(scaled, mul(sub(x, mean), inverse))], mean.shape)
  if (!total || !along) throw new Error('unreachable: two sums were asked for')
  const perChannel = e.constant(1 / (x.shape.at(-1) ?? 1))
  const formula = e.formula((dy, x, mean, inverse, weight, total, along) => {
    const normalized = e.mul(e.sub(x, mean), inverse)
    const centred = e.sub(e.mul(dy, weight), e.mul(e.add(total, e.mul(normalized, along)), perChannel))
    return e.mul(inverse, centred)
  })
  return pointwise('layerNormGrad', [formula], [dy, x, mean, inverse, weight, total, along])
}
