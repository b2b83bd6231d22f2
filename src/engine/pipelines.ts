import { layoutOf } from './bind.js'
import type { Device } from './device.js'
import type { Command } from './lower.js'
import type { GPUComputePipeline } from './webgpu-types.js'

/** What is used of an `AbortSignal`. */
export interface Signal {
  readonly aborted: boolean
  readonly reason: unknown
  throwIfAborted(): void
}

/** How a compilation is followed and ended early. */
export interface CompilationWatch {
  /** Called as pipelines are compiled. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  /** Ends the compilation early, with its reason; pipelines that were begun are done beside what follows, and kept. */
  readonly signal?: Signal | undefined
}

/** Compiles the kernels of commands side by side. Throws the first failure, or where `signal` is aborted meanwhile. */
export async function compilePipelines(
  device: Device,
  commands: readonly Command[],
  { onProgress, signal }: CompilationWatch,
): Promise<Map<Command, GPUComputePipeline>> {
  const dispatches = commands.filter((command) => command.kind === 'dispatch')
  const total = new Set(dispatches.map(({ dispatch }) => dispatch.source)).size
  const done = new Set<string>()
  let abort: (reason: unknown) => void = () => {}
  const aborted = new Promise<never>((_, reject) => {
    abort = reject
  })
  const made = dispatches.map(async (command) => {
    const { label, source } = command.dispatch
    const pipeline = await device.pipeline(label, source, layoutOf(command.dispatch))
    if (signal?.aborted) abort(signal.reason)
    else if (!done.has(source)) onProgress?.(done.add(source).size, total)
    return [command, pipeline] as const
  })
  // Every failure is awaited, so that none is reported later as unhandled.
  const settled = await device.wait(Promise.race([Promise.allSettled(made), aborted]))
  return new Map(
    settled.map((result) => {
      if (result.status === 'rejected') throw result.reason
      return result.value
    }),
  )
}
