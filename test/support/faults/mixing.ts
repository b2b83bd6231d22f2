// ?how=end|end-once: mixing the images of a batch ends the loader thread that does it, each time or only in the first
// thread.
import { isMainThread, parentPort, threadId } from 'node:worker_threads'

interface MixedJob {
  readonly stage: string
  readonly takers: Int32Array
}

const how = new URL(import.meta.url).searchParams.get('how')

if (!isMainThread && parentPort) {
  const port = parentPort
  const takers = new Set<unknown>()
  const on = port.on.bind(port) as (event: string, listener: (job: MixedJob) => void) => typeof port
  const listening = (event: string, listener: (job: MixedJob) => void) =>
    on(event, (job) => {
      if (job.stage === 'mix') takers.add(job.takers)
      listener(job)
    })
  Object.assign(port, { on: listening })
  const store = Atomics.store
  Atomics.store = ((array: Int32Array, index: number, value: number) => {
    const stored = store(array, index, value)
    if (takers.has(array) && (how === 'end' || threadId === 1)) process.exit(7)
    return stored
  }) as typeof store
}
