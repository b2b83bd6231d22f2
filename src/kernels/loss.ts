import type { Expr } from '../engine/expr.js'
import * as e from '../engine/expr.js'
import { apply, applyOne } from '../engine/graph.js'
import { type Call, type Division, defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, inputBuffer, type KernelContext, outputBuffer } from '../engine/kernel.js'
import { elements, isFloat, type Spec, sameShape, spec } from '../engine/shape.js'
import { arrangement, byRow, callByRows, joinedDivision, usesIn } from './arrangement.js'
import { atLeast, div, mul, pointwise, sum, sumAllTo } from './pointwise.js'
import { kthSmallest } from './select.js'
import type { Shader } from './shaders.generated.js'
import * as shaders from './shaders.generated.js'
import { loadTarget, shader } from './shaders.js'
import { stored, together } from './slice-sums.js'
import { extentsOf, storedType } from './views.js'

interface CrossEntropyAttrs {
  readonly ignoreIndex: number
}

function checkTarget(logits: Spec, target: Spec): void {
  if (!sameShape(logits.shape.slice(0, -1), target.shape))
    throw new Error('the target is not the logits without classes')
  if (isFloat(target)) throw new Error('the target must be u8 or u32')
}

function rowKernel(label: string, file: Shader, { inputs, outputs, attrs }: KernelContext<CrossEntropyAttrs>) {
  const [logits = spec([]), target = spec([])] = inputs
  const channels = logits.shape.at(-1) ?? 1
  const rows = elements(target.shape)
  const grid = flatGrid(ceilDiv(rows, 64))
  const aliases = { T: storedType(logits) }
  const source = shader(file, { aliases, hooks: { load_target: loadTarget(target.dtype) } })
  const reads = inputs.map((_, i) => inputBuffer(i))
  const writes = outputs.map((_, i) => outputBuffer(i))
  const uniforms = [rows, channels, attrs.ignoreIndex, grid[0]]
  return [{ name: 'rows', dispatches: [{ label, source, reads, writes, uniforms, grid }] }]
}

/** Logits, target → loss, probability of the target, and what the gradient needs: largest logit, sum of exponentials. */
const crossEntropyOp = defineOp<CrossEntropyAttrs>('crossEntropy', {
  precision: 'wide',
  divide: byRow(),
  shape: ([logits = spec([]), target = spec([])]) => {
    checkTarget(logits, target)
    return Array(4).fill(spec(target.shape))
  },
  vjp: ({ inputs: [logits, target], outputs: [, , largest, total], attrs, grads: [dy] }) => {
    if (!logits || !target || !largest || !total || !dy) return [undefined]
    return [applyOne(crossEntropyGradOp, [logits, target, dy, largest, total], attrs)]
  },
  kernel: (context) => rowKernel('crossEntropy', shaders.cross_entropy, context),
})

interface CrossEntropyGradAttrs extends CrossEntropyAttrs {
  /** What is stored, over the gradient and the operands that follow the operator's own five. */
  readonly epilogue?: Expr
}

const ownInputs = 5

function gradDivision(call: Call<CrossEntropyGradAttrs>): Division | undefined {
  const own = call.inputs.slice(0, ownInputs).map(() => 'divided' as const)
  const operands = usesIn(call.outputs[0]?.shape ?? [], call.inputs.slice(ownInputs))
  return operands && joinedDivision(call, [...own, ...operands])
}

/** Logits, target, gradient of the loss, largest logit, sum of exponentials → gradient of the logits. */
const crossEntropyGradOp = defineOp<CrossEntropyGradAttrs>('crossEntropyGrad', {
  precision: 'same',
  divide: {
    arrangement,
    division: gradDivision,
    rows: (call) => callByRows(call, gradDivision(call), call.attrs),
  },
  shape: ([logits = spec([])]) => [logits],
  epilogue: {
    // On a CPU the kernel of a sum, which takes four elements at once, is about as fast (1.03 times the time of both).
    set: (attrs, epilogue, { software }) => (software || attrs.epilogue ? undefined : { ...attrs, epilogue }),
  },
  kernel: ({ inputs, outputs: [result = spec([])], attrs: { ignoreIndex, epilogue } }) => {
    const [logits = spec([]), target = spec([]), dy = spec([])] = inputs
    const { rows, channels, rowsPerSample } = extentsOf(result.shape)
    const grid = flatGrid(ceilDiv(rows, 64))
    const source = shader(
      shaders.cross_entropy_grad,
      together(
        {
          aliases: { T: storedType(logits), G: storedType(dy) },
          hooks: { load_target: loadTarget(target.dtype) },
        },
        stored(
          storedType(result),
          epilogue && { expr: epilogue, operands: inputs.slice(ownInputs), result },
          ownInputs + 1,
        ),
      ),
    )
    const reads = inputs.map((_, i) => inputBuffer(i))
    const uniforms = [rows, channels, ignoreIndex, grid[0], rowsPerSample, 1]
    const dispatch = { label: 'crossEntropyGrad', source, reads, writes: [outputBuffer(0)], uniforms, grid }
    return [{ name: 'rows', dispatches: [dispatch] }]
  },
})

/** Loss and probability of the target class per pixel; ignored pixels have loss 0 and probability 1. */
function crossEntropyParts(logits: Tensor, target: Tensor, ignoreIndex: number): { loss: Tensor; probability: Tensor } {
  const [loss, probability] = apply(crossEntropyOp, [logits, target], { ignoreIndex })
  if (!loss || !probability) throw new Error('unreachable: crossEntropy has these outputs')
  return { loss, probability: probability.detach() }
}

interface IgnoreOptions {
  /** Target value of pixels that do not count; 255 by default. */
  readonly ignoreIndex?: number
}

/** The mean over no pixel: `nan` as in PyTorch, the default, or `zero`, so that a batch without any teaches nothing. */
interface EmptyOptions {
  readonly empty?: 'nan' | 'zero'
}

/** A sum over `count` pixels, divided by their number. */
function meanOf(total: Tensor, count: Tensor, { empty = 'nan' }: EmptyOptions): Tensor {
  if (empty === 'nan') return div(total, count)
  const atLeastOne = e.formula((n) => e.max(n, e.constant(1)))
  return div(total, pointwise('atLeastOne', [atLeastOne], [count]))
}

/** The sum of `values` over all pixels, divided by the sum of `counted`. */
function meanOver(values: Tensor, counted: Tensor, options: EmptyOptions): Tensor {
  const [total, count] = sumAllTo([values, counted], [])
  if (!total || !count) throw new Error('unreachable: two sums were asked for')
  return meanOf(total, count, options)
}

/**
 * Cross entropy per pixel, as `torch.nn.functional.cross_entropy(reduction='none')`; 0 where ignored.
 *
 * @param logits [N, H, W, C]
 * @param target u8 or u32 [N, H, W], class indices
 * @returns [N, H, W]
 */
export const crossEntropy = (logits: Tensor, target: Tensor, { ignoreIndex = 255 }: IgnoreOptions = {}): Tensor =>
  crossEntropyParts(logits, target, ignoreIndex).loss

/** 1 where the target counts, else 0. */
const countedPixels = (target: Tensor, ignoreIndex: number): Tensor =>
  pointwise('counted', [e.formula((x) => e.sub(e.constant(1), e.equal(x, e.constant(ignoreIndex))))], [target])

/**
 * The mean cross entropy of the pixels that are not ignored: a scalar. Where all are, it is NaN, or 0 with
 * `empty: 'zero'`; its gradient is 0 in both cases.
 */
export function crossEntropyMean(
  logits: Tensor,
  target: Tensor,
  { ignoreIndex = 255, ...options }: IgnoreOptions & EmptyOptions = {},
): Tensor {
  return meanOver(crossEntropy(logits, target, { ignoreIndex }), countedPixels(target, ignoreIndex), options)
}

export interface OhemOptions extends IgnoreOptions, EmptyOptions {
  /** Pixels whose target has at most this probability always count. */
  readonly threshold: number
  /** At least this many of the hardest pixels count; 0, or more than there are valid pixels: all count. */
  readonly minKept: number
}

/**
 * Online hard example mining, as the reference code's ProbOhemCrossEntropy2d: the mean cross entropy of the pixels whose
 * target's probability is at most max(threshold, the minKept-th smallest).
 *
 * @returns the loss, a scalar, and the pixels that count: [N, H, W] of 1 and 0
 */
export function ohemCrossEntropy(
  logits: Tensor,
  target: Tensor,
  { threshold, minKept, ignoreIndex = 255, ...options }: OhemOptions,
): { loss: Tensor; kept: Tensor } {
  const { loss, probability } = crossEntropyParts(logits, target, ignoreIndex)
  const counted = countedPixels(target, ignoreIndex)
  let kept = counted
  if (minKept > 0) {
    const kth = kthSmallest(probability, Math.min(minKept, elements(target.shape)))
    const enough = pointwise('enough', [e.formula((n) => e.greaterEqual(n, e.constant(minKept)))], [sum(counted)])
    const formula = e.formula((p, isCounted, limit, isEnough) => {
      const hard = e.greaterEqual(e.max(limit, e.constant(Math.fround(threshold))), p)
      return e.mul(isCounted, e.where(isEnough, hard, e.constant(1)))
    })
    kept = pointwise('hardPixels', [formula], [probability, counted, kth, enough]).detach()
  }
  return { loss: meanOver(mul(loss, kept), kept, options), kept }
}

/**
 * How confidence weighs a loss: `pixelwise`, confident pixels count; `pixelratio`, all pixels of an image count by the
 * share of confident ones; `pixelavg`, all pixels of the batch count by the sum over images of the mean confidence.
 */
export type ConfidenceMode = 'pixelwise' | 'pixelratio' | 'pixelavg'

export interface ConfidenceOptions extends EmptyOptions {
  /** A pixel is confident from here on, compared in float32. */
  readonly threshold: number
  readonly mode: ConfidenceMode
}

/** 1 where a pixel is confident and not ignored (mask 255), else 0. */
export const confidentPixels = (confidence: Tensor, ignoreMask: Tensor, threshold: number): Tensor =>
  mul(atLeast(confidence, threshold), countedPixels(ignoreMask, 255))

/**
 * The confidence-weighted loss of the PrevMatch code, always divided by the number of valid pixels of the batch.
 * Ignored pixels stay in the loss sum of `pixelratio` and `pixelavg`, as they do there.
 *
 * @param loss [N, H, W]
 * @param confidence [N, H, W]; no gradient flows through it
 * @param ignoreMask u8 or u32 [N, H, W], 255 where a pixel is ignored
 */
export function confidenceWeightedLoss(
  loss: Tensor,
  confidence: Tensor,
  ignoreMask: Tensor,
  { threshold, mode, ...options }: ConfidenceOptions,
): Tensor {
  const trusted = confidence.detach()
  const valid = countedPixels(ignoreMask, 255)
  if (mode === 'pixelwise') {
    return meanOver(mul(loss, confidentPixels(trusted, ignoreMask, threshold)), valid, options)
  }
  const perImage = [loss.shape[0] ?? 0, 1, 1]
  const weight = mode === 'pixelratio' ? confidentPixels(trusted, ignoreMask, threshold) : mul(trusted, valid)
  const [losses, weights, counts] = sumAllTo([loss, weight, valid], perImage)
  if (!losses || !weights || !counts) throw new Error('unreachable: three sums were asked for')
  const shares = meanOf(weights, counts, options)
  const total = mode === 'pixelratio' ? sum(mul(losses, shares)) : mul(sum(losses), sum(shares))
  return meanOf(total, sum(counts), options)
}

/** The share of valid pixels that are confident: a scalar. */
export function confidentRatio(
  confidence: Tensor,
  ignoreMask: Tensor,
  threshold: number,
  options: EmptyOptions = {},
): Tensor {
  const confident = confidentPixels(confidence.detach(), ignoreMask, threshold)
  return meanOver(confident, countedPixels(ignoreMask, 255), options)
}
