import { type CST, Lexer, Parser, parse, YAMLError } from 'yaml'
import { UserError } from '../error.js'

const MAX_ALIASES = 20
/** A configuration with the colours of 150 classes has some two thousand. The time to compare keys grows by the square. */
const MAX_TOKENS = 20_000
/** The parser calls itself for each level, and running out of stack in it can end the process. */
const MAX_DEPTH = 32

const childrenOf = (token: CST.Token): CST.Token[] => {
  if (token.type === 'document') return token.value ? [token.value] : []
  if (!('items' in token)) return []
  return token.items.flatMap(({ key, value }) => [key, value].filter((child) => child != null))
}

/** Checks the size and depth of a text without calling anything for each level. */
function checkLimits(text: string, refuse: (why: string) => never): void {
  let count = 0
  for (const _ of new Lexer().lex(text)) {
    if (++count > MAX_TOKENS) refuse(`it has more than ${MAX_TOKENS} words and signs`)
  }
  let level = [...new Parser().parse(text)]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) refuse(`it is nested more than ${MAX_DEPTH} deep`)
    level = level.flatMap(childrenOf)
  }
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
    value = parse(text, { ...plain, maxAliasCount: MAX_ALIASES, prettyErrors: true, logLevel: 'error' })
  } catch (error) {
    const [first = ''] = String(error instanceof Error ? error.message : error).split('\n')
    if (error instanceof YAMLError) throw new UserError(`${origin} is not valid YAML: ${first.replace(/:$/, '')}`)
    refuse(`${first} (at most ${MAX_ALIASES} uses of an alias are read)`)
  }
  try {
    JSON.stringify(value)
  } catch {
    refuse('a value holds itself by an alias')
  }
  return value
}
