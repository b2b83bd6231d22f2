// The same in a page: `compute(names)`.
import { summarizeAdapter } from '#dist/engine/adapter.js'
import { openDevice } from '#dist/engine/device.js'
import { computations } from './computations.js'

async function compute(names: readonly string[]): Promise<string[]> {
  const { navigator } = globalThis as unknown as { readonly navigator: { readonly gpu: GPU } }
  const adapter = await navigator.gpu.requestAdapter()
  if (!adapter) throw new Error('there is no adapter')
  const device = await openDevice(adapter, summarizeAdapter(adapter))
  const hashes: string[] = []
  for (const name of names) hashes.push(await computations[name as keyof typeof computations](device))
  device.destroy()
  return hashes
}

Object.assign(globalThis, { compute })
