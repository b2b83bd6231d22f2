import { elementwise, sum } from './pointwise.js'
import { get, rowsAndChannels, scalar, type Values, values } from './values.js'

/** Over the last axis. */
export function softmax(x: Values): Values {
  const [rows, channels] = rowsAndChannels(x)
  const result = values(x.shape)
  for (let r = 0; r < rows; r++) {
    const row = x.data.subarray(r * channels, (r + 1) * channels)
    const largest = Math.max(...row)
    const exps = row.map((value) => Math.exp(value - largest))
    const total = exps.reduce((sum, value) => sum + value, 0)
    result.data.set(
      exps.map((value) => value / total),
      r * channels,
    )
  }
  return result
}

/** The largest probability of each pixel and its class; the lowest class on ties. */
export function softmaxMax(x: Values): { confidence: Values; label: Values } {
  const [rows, channels] = rowsAndChannels(x)
  const probabilities = softmax(x)
  const confidence = values(x.shape.slice(0, -1))
  const label = values(x.shape.slice(0, -1))
  for (let r = 0; r < rows; r++) {
    let best = 0
    for (let c = 1; c < channels; c++) {
      if (get(x, r * channels + c) > get(x, r * channels + best)) best = c
    }
    confidence.data[r] = get(probabilities, r * channels + best)
    label.data[r] = best
  }
  return { confidence, label }
}

/** Loss of each pixel, 0 where the target is ignored. */
export function crossEntropy(logits: Values, target: Values, ignoreIndex = 255): Values {
  const [rows, channels] = rowsAndChannels(logits)
  const result = values(target.shape)
  for (let r = 0; r < rows; r++) {
    const label = get(target, r)
    if (label === ignoreIndex) continue
    const row = logits.data.subarray(r * channels, (r + 1) * channels)
    const largest = Math.max(...row)
    const total = row.reduce((sum, value) => sum + Math.exp(value - largest), 0)
    result.data[r] = largest + Math.log(total) - get(logits, r * channels + label)
  }
  return result
}

/** Mean over the pixels that are not ignored; NaN where there are none. */
export function crossEntropyMean(logits: Values, target: Values, ignoreIndex = 255): Values {
  const valid = target.data.filter((label) => label !== ignoreIndex).length
  return scalar(get(sum(crossEntropy(logits, target, ignoreIndex)), 0) / valid)
}

export interface Ohem {
  readonly threshold: number
  readonly minKept: number
  readonly ignoreIndex?: number
}

/**
 * Online hard example mining: pixels whose probability of the target is at most the larger of `threshold` and the
 * minKept-th smallest one; ignored pixels count as 1 in that order. All valid pixels where minKept is 0 or exceeds
 * their number.
 */
function ohemKept(logits: Values, target: Values, { threshold, minKept, ignoreIndex = 255 }: Ohem): Values {
  const [rows, channels] = rowsAndChannels(logits)
  const probabilities = softmax(logits)
  const ofTarget = new Float64Array(rows).fill(1)
  let valid = 0
  for (let r = 0; r < rows; r++) {
    const label = get(target, r)
    if (label === ignoreIndex) continue
    valid++
    // The selection is decided on float32 probabilities, like the real thing.
    ofTarget[r] = Math.fround(get(probabilities, r * channels + label))
  }
  let limit = Number.POSITIVE_INFINITY
  if (minKept > 0 && minKept <= valid) {
    const kth = [...ofTarget].sort((a, b) => a - b)[minKept - 1] ?? 1
    limit = Math.max(kth, Math.fround(threshold))
  }
  const kept = values(target.shape)
  for (let r = 0; r < rows; r++) kept.data[r] = get(target, r) !== ignoreIndex && (ofTarget[r] ?? 1) <= limit ? 1 : 0
  return kept
}

export function ohemCrossEntropy(
  logits: Values,
  target: Values,
  options: Ohem,
  at: Values = logits,
): { loss: Values; kept: Values } {
  const { ignoreIndex = 255 } = options
  const kept = ohemKept(at, target, options)
  const remaining = elementwise((label, keep) => (keep !== 0 ? label : ignoreIndex), target, kept)
  return { loss: crossEntropyMean(logits, remaining, ignoreIndex), kept }
}

export type ConfidenceMode = 'pixelwise' | 'pixelratio' | 'pixelavg'

/** The loss of pseudo-labels weighted by their confidence, over the valid pixels of the batch. */
export function confidenceWeightedLoss(
  loss: Values,
  confidence: Values,
  ignoreMask: Values,
  { threshold, mode }: { threshold: number; mode: ConfidenceMode },
): Values {
  const [samples = 0] = loss.shape
  const pixels = loss.data.length / samples
  let validInBatch = 0
  let batchLoss = 0
  for (let i = 0; i < loss.data.length; i++) {
    if (get(ignoreMask, i) !== 255) validInBatch++
    batchLoss += get(loss, i)
  }
  let total = 0
  for (let s = 0; s < samples; s++) {
    let valid = 0
    let confident = 0
    let confidenceSum = 0
    let sampleLoss = 0
    let confidentLoss = 0
    for (let i = s * pixels; i < (s + 1) * pixels; i++) {
      sampleLoss += get(loss, i)
      if (get(ignoreMask, i) === 255) continue
      valid++
      confidenceSum += get(confidence, i)
      if (get(confidence, i) < Math.fround(threshold)) continue
      confident++
      confidentLoss += get(loss, i)
    }
    if (mode === 'pixelwise') total += confidentLoss
    if (mode === 'pixelratio') total += sampleLoss * (confident / valid)
    if (mode === 'pixelavg') total += batchLoss * (confidenceSum / valid)
  }
  return scalar(total / validInBatch)
}

/** Share of the valid pixels whose confidence reaches the threshold. */
export function confidentRatio(confidence: Values, ignoreMask: Values, threshold: number): Values {
  let valid = 0
  let confident = 0
  for (let i = 0; i < confidence.data.length; i++) {
    if (get(ignoreMask, i) === 255) continue
    valid++
    if (get(confidence, i) >= Math.fround(threshold)) confident++
  }
  return scalar(confident / valid)
}
