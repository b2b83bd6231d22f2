import type { Tensor } from '#dist/engine/ir.js'
import { broadcastTo, fill } from '#dist/kernels/pointwise.js'
import { adamw, movingAverage, sgd } from '#dist/kernels/update.js'
import { type GoldenCase, Params, type Rules, type Tensors } from './case.js'

/** What changes from step to step is an input: learning rates, corrections and decays. */
export function scalarsOf(row: GoldenCase): Record<string, number> {
  const p = new Params(row)
  if (row.op === 'ema') return Object.fromEntries(decaysOf(p).map((decay, k) => [`decay ${k}`, decay]))
  if (row.op !== 'sgd' && row.op !== 'adamw') return {}
  const betas = row.op === 'adamw' ? p.numbers('betas') : []
  const scalars: Record<string, number> = {}
  for (const [step, rates] of p.learningRates().entries()) {
    for (const [group, rate] of rates.entries()) scalars[`learning rate ${step} ${group}`] = rate
    for (const [k, beta] of betas.entries()) scalars[`correction ${step} ${k}`] = 1 - beta ** (step + 1)
  }
  // Zeros are not filled in, which would make one value of both averages, that two outputs cannot take over.
  for (const k of betas.keys()) scalars[`zero ${k}`] = 0
  return scalars
}

const decaysOf = (p: Params): number[] => {
  if (p.has('ratios')) return p.numbers('ratios')
  return [p.number(p.has('alpha') ? 'alpha' : 'decay')]
}

interface AdamWState {
  parameter: Tensor
  average: Tensor
  squareAverage: Tensor
}

/** All steps of a parameter: its state behind each. */
function adamwSteps(t: Tensors, p: Params, name: string, group: number, gradientOf: (step: number) => string) {
  const [beta1 = 0, beta2 = 0] = p.numbers('betas')
  const decays = p.has('weight_decay_per_group') ? p.numbers('weight_decay_per_group') : []
  const options = {
    betas: [beta1, beta2] as const,
    eps: p.number('eps'),
    weightDecay: decays[group] ?? p.number('weight_decay'),
  }
  const zeros = (k: 0 | 1) => broadcastTo(t(`zero ${k}`), t(name).shape)
  let state: AdamWState = { parameter: t(name), average: zeros(0), squareAverage: zeros(1) }
  return p.learningRates().map((_, k) => {
    const scalars = {
      learningRate: t(`learning rate ${k} ${group}`),
      corrections: [t(`correction ${k} 0`), t(`correction ${k} 1`)] as const,
    }
    state = adamw({ ...state, gradient: t(gradientOf(k)), ...scalars }, options)
    return state
  })
}

export const updateRules: Rules = {
  sgd: (t, p) => {
    const options = { momentum: p.number('momentum'), weightDecay: p.number('weight_decay') }
    const steps = p.learningRates().length
    const outputs: Record<string, Tensor> = {}
    for (const [group, names] of p.lists<string>('groups').entries()) {
      for (const name of names) {
        let state = { parameter: t(name), momentumBuffer: fill(t(name).shape, 0) }
        for (let k = 0; k < steps; k++) {
          const gradient = t(`${name}_grad${k}`)
          state = sgd({ ...state, gradient, learningRate: t(`learning rate ${k} ${group}`) }, options)
          outputs[`${name}_step${k}`] = state.parameter
          outputs[`${name}_buf${k}`] = state.momentumBuffer
        }
      }
    }
    return outputs
  },
  adamw: (t, p) => {
    const outputs: Record<string, Tensor> = {}
    if (p.has('groups')) {
      for (const [group, names] of p.lists<string>('groups').entries()) {
        for (const name of names) {
          const states = adamwSteps(t, p, name, group, (k) => `${name}_grad${k}`)
          for (const [k, { parameter }] of states.entries()) outputs[`${name}_step${k}`] = parameter
          outputs[`${name}_exp_avg`] = states.at(-1)?.average ?? t(name)
          outputs[`${name}_exp_avg_sq`] = states.at(-1)?.squareAverage ?? t(name)
        }
      }
      return outputs
    }
    // Groups by the beginning of the names; what has no gradient stays as it is.
    for (const name of p.inputs().filter((input) => !input.startsWith('grad'))) {
      const group = name.startsWith('backbone') ? 0 : 1
      const isUpdated = p.inputs().includes(`grad0/${name}`)
      const last = isUpdated ? adamwSteps(t, p, name, group, (k) => `grad${k}/${name}`).at(-1) : undefined
      outputs[name] = last?.parameter ?? t(name)
      if (last) outputs[`exp_avg/${name}`] = last.average
      if (last) outputs[`exp_avg_sq/${name}`] = last.squareAverage
    }
    return outputs
  },
  ema: (t, p) => {
    const after = decaysOf(p).map((_, k) => movingAverage(t('teacher'), t('student'), t(`decay ${k}`)))
    if (!p.has('iterations')) return { teacher: after[0] ?? t('teacher') }
    return Object.fromEntries(p.numbers('iterations').map((k, i) => [`after_${k}`, after[i] ?? t('teacher')]))
  },
}
