import { type Candidate, ceilDiv, flatGrid, inputBuffer, type KernelContext, outputBuffer } from '../engine/kernel.js'
import { byteLength, dataBytes, elements, type Spec, showSpec, spec } from '../engine/shape.js'
import { copyRows, copyTogether, pitch } from './row-copies.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'

/** Some samples of a tensor. */
export interface RangeAttrs {
  readonly start: number
  readonly size: number
}

/** Samples side by side. */
export interface JoinAttrs {
  readonly starts: readonly number[]
  readonly output: Spec
}

/** Copies some samples of a tensor of any type. */
export function rangeKernel({ inputs, outputs, attrs: { start } }: KernelContext<RangeAttrs>): Candidate {
  const [x = spec([])] = inputs
  const [y = spec([])] = outputs
  if (x.dtype === 'u8') {
    const words = byteLength(y) / 4
    const grid = flatGrid(ceilDiv(words, 64))
    const uniforms = [words, start * pitch(x.shape, 1), grid[0]]
    const operands = { reads: [inputBuffer(0)], writes: [outputBuffer(0)] }
    const dispatch = { label: 'range', source: shader(shaders.copy_bytes), ...operands, uniforms, grid }
    return { name: 'bytes', dispatches: [dispatch] }
  }
  const chunk = elements(y.shape)
  const rows = { rows: 1, chunk, from: [0, chunk], x: [chunk, start * pitch(x.shape, 1)], y: [chunk, 0] } as const
  return { name: 'copy', dispatches: [copyRows('range', [x, y], [inputBuffer(0)], rows)] }
}

/** Bytes as the words that hold them. Throws where samples are no whole words. */
function asWords(tensor: Spec): Spec {
  if (tensor.dtype !== 'u8') return tensor
  const [samples = 1] = tensor.shape
  const words = dataBytes(tensor) / samples / 4
  if (!Number.isInteger(words)) throw new Error(`samples of ${showSpec(tensor)} are no whole words`)
  return spec([samples, words], 'u32')
}

/** Copies samples side by side, or clears where there are none. */
export function joinKernel({ inputs, outputs, attrs: { starts } }: KernelContext<JoinAttrs>): Candidate {
  const [y = spec([])] = outputs
  const words = byteLength(y) / 4
  if (inputs.length > 0) return copyTogether('join', inputs.map(asWords), asWords(y), { axis: 0, starts })
  const grid = flatGrid(ceilDiv(words, 64))
  const operands = { reads: [], writes: [outputBuffer(0)] }
  const clear = { label: 'join', source: shader(shaders.clear), ...operands, uniforms: [words, grid[0]], grid }
  return { name: 'clear', dispatches: [clear] }
}
