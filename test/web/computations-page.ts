// The same in a page: `compute(names)`.
import { open } from '#dist/engine/browser.js'
import { computations, hashOf } from './computations.js'

async function compute(names: readonly string[]): Promise<string[]> {
  const device = await open()
  const hashes: string[] = []
  for (const name of names) hashes.push(hashOf(await computations[name as keyof typeof computations](device)))
  device.destroy()
  return hashes
}

Object.assign(globalThis, { compute })
