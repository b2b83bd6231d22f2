import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

/** Versions of this package, of Dawn's package, and of Node. */
export function versions(): Record<string, string> {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version: string }
  const { version: webgpu } = createRequire(import.meta.url)('webgpu/package.json') as { version: string }
  return { atrous: version, webgpu, node: process.version }
}
