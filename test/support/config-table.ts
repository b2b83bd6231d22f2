// node build/test/support/config-table.js: writes the tables of all configuration keys into docs/configuration.md.
import { readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { z } from 'zod'
import { aliases, keysBySubject } from '#dist/train/config/schema.js'

export const documentPath = 'docs/configuration.md'
const [begin, end] = ['<!-- The tables are written by npm run docs -->', '<!-- End of the tables -->']

type JsonSchema = z.core.JSONSchema.BaseSchema

/** The schema beneath, where a text would do as well. */
const objectOf = (schema: JsonSchema): JsonSchema | undefined =>
  schema.properties ? schema : (schema.anyOf as JsonSchema[] | undefined)?.find(({ properties }) => properties)

const code = (value: unknown): string =>
  `\`${typeof value === 'string' ? value : JSON.stringify(value).replaceAll(',', ', ')}\``

function numbers(kind: string, { minimum, maximum, exclusiveMinimum }: JsonSchema): string {
  if (exclusiveMinimum !== undefined) return `${kind} above ${exclusiveMinimum}`
  if (maximum === undefined || maximum === Number.MAX_SAFE_INTEGER) return `${kind} from ${minimum}`
  return `${kind}, ${minimum} to ${maximum}`
}

const plural = (text: string): string =>
  text.replace(/^(whole number|number|text)/, '$1s').replace(/^true/, 'each true')

/** What values a key may have. Throws where nothing is known of them. */
function valuesOf(schema: JsonSchema): string {
  const items = schema.prefixItems as JsonSchema[] | undefined
  if (schema.title) return schema.title
  if (schema.enum) return schema.enum.map(code).join(', ')
  if ('const' in schema) return code(schema.const)
  if (items?.[0]) return `${items.length} ${plural(valuesOf(items[0])).replace(/^each /, 'times ')}`
  if (schema.anyOf) return 'path, or keys'
  if (schema.type === 'array') return `list of ${plural(valuesOf(schema.items as JsonSchema))}`
  if (schema.properties) return 'keys'
  if (schema.type === 'object') return `map to ${plural(valuesOf(schema.additionalProperties as JsonSchema))}`
  if (schema.type === 'integer') return numbers('whole number', schema)
  if (schema.type === 'number') return numbers('number', schema)
  if (schema.type === 'boolean') return 'true or false'
  if (schema.type === 'string') return 'text'
  throw new Error(`there are no words for the values of ${JSON.stringify(schema)}`)
}

function defaultOf(schema: JsonSchema, required: boolean): string {
  if (required) return 'required'
  const told = schema.default !== undefined && schema.default !== '' && !schema.properties
  return told ? code(schema.default) : ''
}

/**
 * Rows of the keys of an object, and of those within them. Throws where a key is not described.
 * @param isItem whether it is one of a list, of which only its own keys have rows
 */
function rowsOf(object: JsonSchema, path: readonly string[], seen: Set<string>, isItem = false): string[] {
  return Object.entries(object.properties ?? {}).flatMap(([key, value]) => {
    const schema = value as JsonSchema
    const name = [...path, key].join('.')
    if (!schema.description) throw new Error(`the key ${name} has no description: give it one in the schema`)
    const former = Object.keys(aliases).find((alias) => aliases[alias] === name)
    const meaning = former ? `${schema.description} Formerly ${code(former)}.` : schema.description
    const cells = [code(name), valuesOf(schema), defaultOf(schema, object.required?.includes(key) ?? false), meaning]
    const row = `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
    const item = schema.type === 'array' && !isItem ? objectOf(schema.items as JsonSchema) : undefined
    if (item) return [row, ...rowsOf(item, [...path, `${key}[]`], seen, true)]
    const inner = isItem ? undefined : objectOf(schema)
    // The keys of folders are the same for each list.
    const shape = JSON.stringify(inner)
    if (!inner || seen.has(shape)) return [row]
    seen.add(shape)
    return [row, ...rowsOf(inner, [...path, key], seen)]
  })
}

/** The tables of all keys, from the schema of the configuration. */
export function configTables(): string {
  const seen = new Set<string>()
  const tables = Object.entries(keysBySubject()).map(([subject, keys]) => {
    const object = z.toJSONSchema(z.strictObject(keys), { io: 'input', unrepresentable: 'any' })
    return `## ${subject}\n\n| key | values | default | meaning |\n| --- | --- | --- | --- |\n${rowsOf(object, [], seen).join('\n')}\n`
  })
  return tables.join('\n')
}

/** The document with its tables as they should be. */
export function currentDocument(text: string): string {
  const [before, rest] = text.split(`${begin}\n`)
  const after = rest?.split(`${end}\n`)[1]
  if (before === undefined || after === undefined) throw new Error(`${documentPath} lacks the marks around its tables`)
  return `${before}${begin}\n\n${configTables()}\n${end}\n${after}`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync(documentPath, currentDocument(readFileSync(documentPath, 'utf8')))
}
