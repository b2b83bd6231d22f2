// Writes src/kernels/shaders.generated.ts: every file of shaders/ as an export of its own, so that the engine needs no file
// system at run time, works in a browser as it does in Node, and a bundler leaves out what is not used.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

const folder = new URL('../shaders/', import.meta.url)
const target = new URL('../src/kernels/shaders.generated.ts', import.meta.url)

/** WGSL without indentation, empty lines and comments, save the mark of loops that are written out. */
function stripped(text) {
  const lines = text.split('\n').map((line) => {
    const code = line.replace(/\s*\/\/.*$/, '').trim()
    return /\/\/ unrolled$/.test(line) ? `${code} // unrolled` : code
  })
  return `${lines.filter((line) => line !== '').join('\n')}\n`
}

const entries = readdirSync(folder)
  .filter((name) => name.endsWith('.wgsl'))
  .sort()
  .map((file) => {
    const name = file.slice(0, -'.wgsl'.length)
    const text = stripped(readFileSync(new URL(file, folder), 'utf8'))
    if (text.includes('/*')) throw new Error(`shaders/${file}: comments are written with //`)
    return `export const ${name}: Shader = { name: ${JSON.stringify(name)}, text: ${JSON.stringify(text)} }`
  })
const output = `// The files of shaders/ by name without ending. Written by scripts/embed-shaders.mjs.

/** A file of shaders/. */
export interface Shader {
  readonly name: string
  readonly text: string
}

${entries.join('\n')}
`
let previous = ''
try {
  previous = readFileSync(target, 'utf8')
} catch {}
if (previous !== output) writeFileSync(target, output)
