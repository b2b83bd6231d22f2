import { type CST, Lexer, Parser, parse, YAMLError } from 'yaml'
import { UserError } from '../error.js'
import { firstLineOf } from '../io/files.js'

const maxAliases = 20
/** A configuration with the colours of 150 classes has some two thousand. The time to compare keys grows by the square. */
const maxTokens = 20_000
/** The parser calls itself for each level, and running out of stack in it can end the process. */
const maxDepth = 32

const childrenOf = (token: CST.Token): CST.Token[] => {
  if (token.type === 'document') return token.value ? [token.value] : []
  if (!('items' in token)) return []
  return token.items.flatMap(({ key, value }) => [key, value].filter((child) => child != null))
}

/** Checks the size and depth of a text without calling anything for each level. */
function checkLimits(text: string, refuse: (why: string) => never): void {
  let count = 0
  for (const _ of new Lexer().lex(text)) {
    if (++count > maxTokens) refuse(`it has more than ${maxTokens} words and signs`)
  }
  let level = [...new Parser().parse(text)]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > maxDepth) refuse(`it is nested more than ${maxDepth} deep`)
    level = level.flatMap(childrenOf)
  }
}

/** A colour at the beginning of a comment, where a value or key could be. */
const colorInComment = /(?:^[ \t]*|[[{,][ \t]*|[-:][ \t]+)(#(?:[0-9a-f]{6}|[0-9a-f]{3}))(?![\w])/im

/** What becomes of a colour without quotes, where a text has one. */
function explainColor(text: string): string | undefined {
  const found = colorInComment.exec(text)
  if (!found?.[1]) return undefined
  const line = text.slice(0, found.index + found[0].length).split('\n').length
  return `line ${line} has the colour ${found[1]} without quotes, which begins a comment: write "${found[1]}"`
}

/** Whether a value holds nothing anywhere, which no key of a configuration may. */
function holdsNull(text: string): boolean {
  let found = false
  JSON.parse(text, (_, value: unknown) => {
    found ||= value === null
    return value
  })
  return found
}

/**
 * The value of a YAML text.
 * @throws UserError naming the origin, also for what would cost much more memory or time than its length suggests
 */
export function parseYaml(text: string, origin: string): unknown {
  const refuse = (why: string): never => {
    throw new UserError(`${origin} is refused: ${why}`)
  }
  checkLimits(text, refuse)
  let value: unknown
  try {
    // Whatever version the text asks for: numbers, texts, lists and keys, but no dates, sets or bytes.
    const plain = { schema: 'core', resolveKnownTags: false, merge: false } as const
    value = parse(text, { ...plain, maxAliasCount: maxAliases, prettyErrors: true, logLevel: 'error' })
  } catch (error) {
    const first = firstLineOf(error)
    const bareColor = explainColor(text)
    if (error instanceof YAMLError && bareColor !== undefined) throw new UserError(`${origin}: ${bareColor}`)
    if (error instanceof YAMLError) throw new UserError(`${origin} is not valid YAML: ${first}`)
    refuse(`${first} (at most ${maxAliases} uses of an alias are read)`)
  }
  let json: string | undefined
  try {
    json = JSON.stringify(value)
  } catch {
    refuse('a value holds itself by an alias')
  }
  const bareColor = explainColor(text)
  if (bareColor !== undefined && json !== undefined && holdsNull(json)) throw new UserError(`${origin}: ${bareColor}`)
  return value
}
