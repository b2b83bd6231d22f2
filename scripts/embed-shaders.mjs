// Writes src/kernels/shaders.generated.ts: the text of every file in shaders/, so that the engine needs no file
// system at run time and works in a browser as it does in Node.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

const folder = new URL('../shaders/', import.meta.url)
const target = new URL('../src/kernels/shaders.generated.ts', import.meta.url)
const entries = readdirSync(folder)
  .filter((name) => name.endsWith('.wgsl'))
  .sort()
  .map((name) => {
    const text = readFileSync(new URL(name, folder), 'utf8')
    return `  ${JSON.stringify(name.slice(0, -'.wgsl'.length))}: ${JSON.stringify(text)},`
  })
const output = `/** The files of shaders/ by name without ending. Written by scripts/embed-shaders.mjs. */
export const shaderSources = {
${entries.join('\n')}
} as const
`
let previous = ''
try {
  previous = readFileSync(target, 'utf8')
} catch {}
if (previous !== output) writeFileSync(target, output)
