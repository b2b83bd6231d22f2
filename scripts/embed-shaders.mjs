// Writes src/kernels/shaders.generated.ts and mirror-shaders.generated.ts: every file of shaders/ as an export of its own, so
// that the engine needs no file system at run time, works in a browser as it does in Node, and a bundler leaves out what is
// not used.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

/** WGSL without indentation, empty lines and comments, save the mark of loops that are written out. */
function stripped(text) {
  const lines = text.split('\n').map((line) => {
    const code = line.replace(/\s*\/\/.*$/, '').trim()
    return /\/\/ unrolled$/.test(line) ? `${code} // unrolled` : code
  })
  return `${lines.filter((line) => line !== '').join('\n')}\n`
}

const declaration = `
/** A file of shaders/. */
export interface Shader {
  readonly name: string
  readonly text: string
}
`

/** Writes the module of the files of a folder, where it is not what it was. */
function embed(folder, head, target) {
  const files = readdirSync(new URL(`../${folder}`, import.meta.url)).filter((name) => name.endsWith('.wgsl'))
  const entries = files.sort().map((file) => {
    const name = file.slice(0, -'.wgsl'.length)
    const text = stripped(readFileSync(new URL(`../${folder}${file}`, import.meta.url), 'utf8'))
    if (text.includes('/*')) throw new Error(`${folder}${file}: comments are written with //`)
    return `export const ${name}: Shader = { name: ${JSON.stringify(name)}, text: ${JSON.stringify(text)} }`
  })
  const by = `// The files of ${folder} by name without ending. Written by scripts/embed-shaders.mjs.\n`
  const output = `${by}${head}\n${entries.join('\n')}\n`
  const url = new URL(`../src/kernels/${target}`, import.meta.url)
  let previous = ''
  try {
    previous = readFileSync(url, 'utf8')
  } catch {}
  if (previous !== output) writeFileSync(url, output)
}

embed('shaders/', declaration, 'shaders.generated.ts')
// Read by CPU drivers alone: a page loads them where there is one.
embed('shaders/mirrors/', `import type { Shader } from './shaders.generated.js'\n`, 'mirror-shaders.generated.ts')
