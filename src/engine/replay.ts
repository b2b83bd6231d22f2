import type { Timestamps } from './timestamps.js'

/** Where in a buffer a value begins. */
export interface BufferPlace {
  readonly buffer: GPUBuffer
  readonly offset: number
}

/** What a replay executes, with nothing left to decide. */
export type Step =
  | {
      readonly kind: 'dispatch'
      readonly pipeline: GPUComputePipeline
      readonly bindGroup: GPUBindGroup
      readonly grid: readonly [number, number, number]
      readonly label: string
    }
  | { readonly kind: 'copy'; readonly from: BufferPlace; readonly to: BufferPlace; readonly bytes: number }

/** Encodes the steps into as few passes as the copies among them allow. */
export function replay(encoder: GPUCommandEncoder, label: string, steps: readonly Step[]): void {
  let pass: GPUComputePassEncoder | undefined
  for (const step of steps) {
    if (step.kind === 'copy') {
      pass?.end()
      pass = undefined
      copy(encoder, step)
    } else {
      pass ??= encoder.beginComputePass({ label })
      dispatch(pass, step)
    }
  }
  pass?.end()
}

/** Encodes the steps with a time stamp before the first and one after each. */
export function replayTimed(encoder: GPUCommandEncoder, steps: readonly Step[], stamps: Timestamps): void {
  stamps.mark(encoder)
  for (const step of steps) {
    if (step.kind === 'copy') {
      copy(encoder, step)
      stamps.mark(encoder)
    } else {
      const pass = encoder.beginComputePass({ label: step.label, timestampWrites: stamps.atEnd() })
      dispatch(pass, step)
      pass.end()
    }
  }
}

const copy = (encoder: GPUCommandEncoder, { from, to, bytes }: Step & { kind: 'copy' }): void =>
  encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, bytes)

function dispatch(pass: GPUComputePassEncoder, { pipeline, bindGroup, grid }: Step & { kind: 'dispatch' }): void {
  pass.setPipeline(pipeline)
  pass.setBindGroup(0, bindGroup)
  pass.dispatchWorkgroups(...grid)
}
