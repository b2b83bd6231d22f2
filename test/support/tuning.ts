import type { Measurement } from '#dist/engine/autotune.js'
import { type Candidate, inputBuffer, outputBuffer } from '#dist/engine/kernel.js'

/** A kernel of one dispatch over 64 workgroups. */
export const kernel = (name: string, source: string): Candidate => ({
  name,
  dispatches: [
    { label: name, source, reads: [inputBuffer(0)], writes: [outputBuffer(0)], uniforms: [], grid: [64, 1, 1] },
  ],
})

/** What was measured of kernels k0, k1 and so on with these shaders. */
export const measurement = (call: string, choice: string, sources: readonly string[] = ['a', 'b']): Measurement => ({
  call,
  kernels: sources.map((source, i) => ({ name: `k${i}`, sources: [source] })),
  milliseconds: sources.map((_, i) => 1 + i),
  choice,
})
