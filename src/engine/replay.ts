import { type MirrorFormat, mirrorExtent, mirrorWidth, rowBytes } from './mirror.js'
import type { KernelInfo } from './profile.js'
import type {
  GPUBindGroup,
  GPUBuffer,
  GPUCommandEncoder,
  GPUComputePassTimestampWrites,
  GPUComputePipeline,
  GPUDevice,
  GPUTexture,
} from './webgpu-types.js'

/** Where in a buffer a value begins. */
export interface BufferAddress {
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
  | { readonly kind: 'copy'; readonly from: BufferAddress; readonly to: BufferAddress; readonly bytes: number }
  | { readonly kind: 'clear'; readonly to: BufferAddress; readonly bytes: number }
  | {
      readonly kind: 'mirror'
      readonly from: BufferAddress
      readonly texture: GPUTexture
      readonly format: MirrorFormat
      readonly bytes: number
    }

/** Writes the device's time between its commands. */
export interface TimestampWriter {
  /** Writes the time when everything before it is done. */
  mark(encoder: GPUCommandEncoder): void
  /** For a pass that writes the time of its end. */
  atEnd(): GPUComputePassTimestampWrites
}

/** One run of a program. */
export interface Run {
  readonly program: string
  /** When JavaScript began with it, by `performance.now()`. */
  readonly began: number
  readonly steps: readonly Step[]
  /** Behind which steps a submission ends; all in one where it is absent. */
  readonly ends?: readonly number[] | undefined
  /** What each step does. */
  readonly kernels: () => readonly KernelInfo[]
}

/** Submits the runs of a device in place of `submit`. */
export interface RunRecorder {
  submit(gpu: GPUDevice, run: Run): void
}

const recorders = new WeakMap<GPUDevice, RunRecorder>()

/** What records the runs of a device, if anything does. */
export const recorderOf = (gpu: GPUDevice): RunRecorder | undefined => recorders.get(gpu)

/** Lets `recorder` submit the runs of a device from now on; undefined: none any more. */
export function setRecorder(gpu: GPUDevice, recorder: RunRecorder | undefined): void {
  if (recorder) recorders.set(gpu, recorder)
  else recorders.delete(gpu)
}

/** Encodes and submits a run. */
export function submit(gpu: GPUDevice, run: Run): void {
  const recorder = recorderOf(gpu)
  if (recorder) {
    recorder.submit(gpu, run)
    return
  }
  const { program, steps, ends = [steps.length] } = run
  let start = 0
  for (const end of ends) {
    const encoder = gpu.createCommandEncoder({ label: program })
    replay(encoder, program, steps.slice(start, end))
    gpu.queue.submit([encoder.finish()])
    start = end
  }
}

/** Encodes the steps into as few passes as the copies among them allow. */
export function replay(encoder: GPUCommandEncoder, label: string, steps: readonly Step[]): void {
  let pass: GPUComputePassEncoder | undefined
  for (const step of steps) {
    if (step.kind === 'dispatch') {
      pass ??= encoder.beginComputePass({ label })
      dispatch(pass, step)
    } else {
      pass?.end()
      pass = undefined
      copy(encoder, step)
    }
  }
  pass?.end()
}

/** Encodes the steps with a time stamp before the first and one after each. */
export function replayTimed(encoder: GPUCommandEncoder, steps: readonly Step[], stamps: TimestampWriter): void {
  stamps.mark(encoder)
  for (const step of steps) {
    if (step.kind === 'dispatch') {
      const pass = encoder.beginComputePass({ label: step.label, timestampWrites: stamps.atEnd() })
      dispatch(pass, step)
      pass.end()
    } else {
      copy(encoder, step)
      stamps.mark(encoder)
    }
  }
}

function copy(encoder: GPUCommandEncoder, step: Exclude<Step, { kind: 'dispatch' }>): void {
  if (step.kind === 'clear') {
    encoder.clearBuffer(step.to.buffer, step.to.offset, step.bytes)
    return
  }
  const { from, bytes } = step
  if (step.kind === 'copy') {
    encoder.copyBufferToBuffer(from.buffer, from.offset, step.to.buffer, step.to.offset, bytes)
    return
  }
  const { texture, format } = step
  const bytesPerRow = rowBytes(format)
  const { rows, rest } = mirrorExtent(bytes, format)
  if (rows > 0)
    encoder.copyBufferToTexture({ ...addressed(from, 0), bytesPerRow }, { texture, origin: [0, 1] }, [
      mirrorWidth,
      rows,
    ])
  if (rest > 0)
    encoder.copyBufferToTexture(
      { ...addressed(from, rows * bytesPerRow), bytesPerRow },
      { texture, origin: [0, 1 + rows] },
      [rest, 1],
    )
}

const addressed = ({ buffer, offset }: BufferAddress, further: number): BufferAddress => ({
  buffer,
  offset: offset + further,
})

function dispatch(pass: GPUComputePassEncoder, { pipeline, bindGroup, grid }: Step & { kind: 'dispatch' }): void {
  pass.setPipeline(pipeline)
  pass.setBindGroup(0, bindGroup)
  pass.dispatchWorkgroups(...grid)
}
