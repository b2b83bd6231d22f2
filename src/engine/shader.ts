/** What a use of a shader file changes in it. */
export interface Specialization {
  /** New values of leading `const NAME = …;` declarations. */
  readonly constants?: Readonly<Record<string, number | boolean>>
  /** New targets of `alias NAME = …;` declarations: element types. */
  readonly aliases?: Readonly<Record<string, string>>
  /** New texts of functions, by name: the whole `fn name(…) { … }`. */
  readonly hooks?: Readonly<Record<string, string>>
  /** Lanes of the subgroups that the kernel asks for; needs `subgroup-size-control`. */
  readonly subgroupSize?: number
}

/**
 * A shader file with its constants, aliases and hook functions replaced, and the loops that it marks so unrolled: see
 * `unroll`. The file is valid WGSL before and after, and means the same. Throws where it has no such declaration.
 */
export function specialize(
  source: string,
  { constants = {}, aliases = {}, hooks = {}, subgroupSize }: Specialization,
): string {
  let text = source
  for (const [name, value] of Object.entries(constants)) {
    text = replaceLine(text, new RegExp(`^const ${name}(: \\w+)? = [^;]*;`, 'm'), `const ${name}$1 = ${value};`, name)
  }
  for (const [name, type] of Object.entries(aliases)) {
    text = replaceLine(text, new RegExp(`^alias ${name} = [^;]*;`, 'm'), `alias ${name} = ${type};`, name)
  }
  for (const [name, body] of Object.entries(hooks)) text = replaceFunction(text, name, body)
  return withSubgroupSize(withExtensions(unroll(text, text)), subgroupSize)
}

const withSubgroupSize = (source: string, size: number | undefined): string =>
  size === undefined
    ? source
    : `enable subgroup_size_control;\n${source.replace(/^@compute /m, `@compute @subgroup_size(${size}) `)}`

/** A shader with the directive in front without which it may not name the type `f16`. */
export const withExtensions = (source: string): string =>
  /\bf16\b/.test(source) && !/^enable f16;/m.test(source) ? `enable f16;\n${source}` : source

const unrolledLoop = /for \(var (\w+) = 0u; \1 < (\w+); \1\+\+\) \{ \/\/ unrolled\n/

/**
 * Writes out loops `for (var i = 0u; i < COUNT; i++) { // unrolled`, whose count is a number or a constant of the shader:
 * a block for each turn. Compilers leave long ones as loops, and arrays that they index in memory.
 */
function unroll(text: string, shader: string): string {
  const loop = unrolledLoop.exec(text)
  if (!loop) return text
  const [opening, variable = '', bound = ''] = loop
  const count = Number.parseInt(/^\d/.test(bound) ? bound : constantIn(shader, bound), 10)
  const begin = loop.index + opening.length
  const end = blockEnd(text, loop.index, `a loop of the shader over '${variable}'`)
  const body = unroll(text.slice(begin, end - 1), shader)
  const name = new RegExp(`\\b${variable}\\b`, 'g')
  const turns = Array.from({ length: count }, (_, turn) => `{\n${body.replace(name, `${turn}u`)}}`)
  return text.slice(0, loop.index) + turns.join('\n') + unroll(text.slice(end), shader)
}

function constantIn(shader: string, name: string): string {
  const value = new RegExp(`^const ${name}(?:: \\w+)? = (\\d+)u?;`, 'm').exec(shader)?.[1]
  if (value === undefined) throw new Error(`the shader declares no '${name}' by a number`)
  return value
}

function replaceLine(text: string, pattern: RegExp, replacement: string, name: string): string {
  if (!pattern.test(text)) throw new Error(`the shader declares no '${name}'`)
  return text.replace(pattern, replacement)
}

function replaceFunction(text: string, name: string, body: string): string {
  const start = text.search(new RegExp(`^fn ${name}\\(`, 'm'))
  if (start < 0) throw new Error(`the shader has no function '${name}'`)
  return text.slice(0, start) + body + text.slice(blockEnd(text, start, `function '${name}' of the shader`))
}

/** Where the block ends whose first brace follows `start`. */
function blockEnd(text: string, start: number, what: string): number {
  let depth = 0
  for (let at = text.indexOf('{', start); at < text.length; at++) {
    if (text[at] === '{') depth++
    if (text[at] === '}' && --depth === 0) return at + 1
  }
  throw new Error(`${what} has no end`)
}
