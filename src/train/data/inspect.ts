import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Sample } from './dataset.js'
import '../io/decoders.js'
import type { Inspection, InspectionTask } from './inspect-worker.js'
import type { LabelRules } from './label-rules.js'

export interface InspectOptions {
  /** Threads. Default: as many as there are cores, at most 16. */
  readonly workers?: number | undefined
  /** Colours 0xRRGGBB that the classes have elsewhere: labels that go by them are noted where the rules name none. */
  readonly usualColors?: ReadonlyMap<number, number> | undefined
  /** Called after each pair. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/** Tasks in progress at a time in a thread: one is decoded by the decoder's own threads while another is counted. */
const LANES = 2

/**
 * Reads every pair once, in several threads.
 * @param rules null to list the values of the labels alone, without reading the images
 * @returns one inspection per sample, in their order
 */
export async function inspectSamples(
  samples: readonly Sample[],
  rules: LabelRules | null,
  { workers: count = Math.min(16, availableParallelism()), usualColors, onProgress }: InspectOptions = {},
): Promise<Inspection[]> {
  const found: Inspection[] = []
  if (samples.length === 0) return found
  const taskOf = (id: number, sample: Sample): InspectionTask => {
    return { id, sample, rules, usualColors: usualColors ?? null }
  }
  const workers: Worker[] = []
  let next = 0
  let done = 0
  try {
    await new Promise<void>((resolve, reject) => {
      const give = (worker: Worker) => {
        const sample = samples[next]
        if (sample) worker.postMessage(taskOf(next++, sample))
      }
      for (let i = 0; i < Math.min(count, samples.length); i++) {
        const worker = new Worker(new URL('./inspect-worker.js', import.meta.url))
        workers.push(worker)
        worker.on('error', reject)
        worker.on('exit', (code) => reject(new Error(`a thread that reads files ended with code ${code}`)))
        worker.on('message', (inspection: Inspection) => {
          found[inspection.id] = inspection
          done++
          onProgress?.(done, samples.length)
          if (done === samples.length) resolve()
          else give(worker)
        })
        for (let lane = 0; lane < LANES; lane++) give(worker)
      }
    })
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
  return found
}
