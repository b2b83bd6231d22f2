import { readFileSync } from 'node:fs'

/** Versions of this package, of Dawn's package, and of Node. */
export function versions(): Record<string, string> {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version, dependencies } = JSON.parse(text) as { version: string; dependencies: Record<string, string> }
  return { atrous: version, webgpu: dependencies.webgpu ?? 'unknown', node: process.version }
}
