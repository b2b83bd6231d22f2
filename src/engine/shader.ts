/** What a use of a shader file changes in it. */
export interface Specialization {
  /** New values of leading `const NAME = …;` declarations. */
  readonly constants?: Readonly<Record<string, number | boolean>>
  /** New targets of `alias NAME = …;` declarations: element types. */
  readonly aliases?: Readonly<Record<string, string>>
  /** New texts of functions, by name: the whole `fn name(…) { … }`. */
  readonly hooks?: Readonly<Record<string, string>>
}

/**
 * A shader file with its constants, aliases and hook functions replaced. The file is valid WGSL before and after.
 * Throws where it has no such declaration.
 */
export function specialize(source: string, { constants = {}, aliases = {}, hooks = {} }: Specialization): string {
  let text = source
  for (const [name, value] of Object.entries(constants)) {
    text = replaceLine(text, new RegExp(`^const ${name}(: \\w+)? = [^;]*;`, 'm'), `const ${name}$1 = ${value};`, name)
  }
  for (const [name, type] of Object.entries(aliases)) {
    text = replaceLine(text, new RegExp(`^alias ${name} = [^;]*;`, 'm'), `alias ${name} = ${type};`, name)
  }
  for (const [name, body] of Object.entries(hooks)) text = replaceFunction(text, name, body)
  return withExtensions(text)
}

/** A shader with the directive in front without which it may not name the type `f16`. */
export const withExtensions = (source: string): string =>
  /\bf16\b/.test(source) && !/^enable f16;/m.test(source) ? `enable f16;\n${source}` : source

function replaceLine(text: string, pattern: RegExp, replacement: string, name: string): string {
  if (!pattern.test(text)) throw new Error(`the shader declares no '${name}'`)
  return text.replace(pattern, replacement)
}

function replaceFunction(text: string, name: string, body: string): string {
  const start = text.search(new RegExp(`^fn ${name}\\(`, 'm'))
  if (start < 0) throw new Error(`the shader has no function '${name}'`)
  let depth = 0
  for (let at = text.indexOf('{', start); at < text.length; at++) {
    if (text[at] === '{') depth++
    if (text[at] === '}' && --depth === 0) return text.slice(0, start) + body + text.slice(at + 1)
  }
  throw new Error(`function '${name}' of the shader has no end`)
}
