import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { UserError } from '../error.js'
import { decodeText } from '../io/text.js'
import { isRecord } from '../record.js'
import { keysAt, show, unknownKey } from './explain.js'
import { parseConfig } from './parse.js'
import { aliases, type Config } from './schema.js'
import { parseYaml } from './yaml.js'

export { parseConfig } from './parse.js'
export type { Config } from './schema.js'

const maxBytes = 2 ** 20

/** Applies one `key.of.a.level=value` in place. */
function applyOverride(root: Record<string, unknown>, override: string): void {
  const equals = override.indexOf('=')
  if (equals < 1) throw new UserError(`--set ${override}: write it as key=value, for example --set lr=0.01`)
  const path = override.slice(0, equals).trim().split('.')
  const key = path.at(-1) ?? ''
  const parents = path.slice(0, -1)
  const isAlias = parents.length === 0 && Object.hasOwn(aliases, key)
  if (!isAlias && !keysAt(parents)?.includes(key)) throw unknownKey(path, '--set')
  let at = root
  for (const parent of parents) {
    const next = at[parent]
    if (isRecord(next)) at = next
    else {
      const created = {}
      at[parent] = created
      at = created
    }
  }
  at[key] = parseYaml(override.slice(equals + 1), `--set ${override}`)
}

/**
 * Reads a YAML configuration.
 * @param overrides texts `key=value` or `section.key=value` whose values are YAML
 * @throws UserError naming the file or option, the key, what was found and what is expected
 */
export function loadConfig(path: string, overrides: readonly string[] = []): Config {
  let text: string
  try {
    const stat = statSync(path)
    if (!stat.isFile()) throw new UserError(`${path} is not a file`)
    if (stat.size > maxBytes) throw new UserError(`${path} is larger than 1 MiB: not a configuration`)
    text = decodeText(readFileSync(path))
  } catch (error) {
    if (error instanceof UserError) throw error
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    const what = error instanceof Error ? error.message : String(error)
    throw new UserError(missing ? `there is no configuration ${path}: check --config` : `cannot read ${path}: ${what}`)
  }
  const root = parseYaml(text, path) ?? {}
  if (!isRecord(root))
    throw new UserError(`${path} is not a configuration: it holds ${show(root)} where keys are expected`)
  return withOverrides(root, overrides, path)
}

/**
 * Checks a configuration that is already an object, after changing some of its keys.
 * @param overrides texts `key=value` or `section.key=value` whose values are YAML
 * @param origin names the object in error messages
 * @throws UserError naming the object or option, the key, what was found and what is expected
 */
export function withOverrides(
  given: Readonly<Record<string, unknown>>,
  overrides: readonly string[],
  origin: string,
): Config {
  const root = structuredClone(given)
  for (const override of overrides) applyOverride(root, override)
  const optionFor = (key: string) =>
    overrides.findLast((override) => `${key}.`.startsWith(`${override.split('=', 1)[0]?.trim()}.`))
  return parseConfig(root, (key) => {
    const option = optionFor(key)
    return option ? `--set ${option}` : origin
  })
}

const pathKeys: readonly (keyof Config)[] = [
  'data_root',
  'labeled_id_path',
  'unlabeled_id_path',
  'val_id_path',
  'pretrained',
]

/** A value with the paths of pretrained weights within it made absolute. */
function withAbsoluteWeights(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withAbsoluteWeights)
  if (!isRecord(value)) return value
  const entries = Object.entries(value).map(([key, entry]) => [
    key,
    key === 'pretrained' && typeof entry === 'string' ? resolve(entry) : withAbsoluteWeights(entry),
  ])
  return Object.fromEntries(entries)
}

/** A configuration that means the same files in any working folder. Folders of a list stay relative to `data_root`. */
export const withAbsolutePaths = (config: Config): Config => ({
  ...(withAbsoluteWeights(config) as Config),
  ...Object.fromEntries(
    pathKeys.flatMap((key) => {
      const path = config[key]
      return typeof path === 'string' ? [[key, resolve(path)] as const] : []
    }),
  ),
})
