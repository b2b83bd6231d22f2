import { UserError } from '../error.js'
import { isRecord } from '../record.js'
import { checkTogether } from './check.js'
import { explain, type Origin } from './explain.js'
import { aliases, type Config, configSchema } from './schema.js'

export type { Config } from './schema.js'

/**
 * Checks a configuration that is already an object, and fills in the defaults.
 * @param origin names the source in error messages
 * @throws UserError naming the key, what was found and what is expected
 */
export function parseConfig(value: unknown, origin: string | Origin): Config {
  const name = typeof origin === 'string' ? () => origin : origin
  const result = configSchema().safeParse(withoutAliases(value, name), { reportInput: true })
  if (!result.success) throw explain(result.error, name)
  return checkTogether(result.data, name(''))
}

/** An object with today's names of keys. */
function withoutAliases(value: unknown, origin: Origin): unknown {
  if (!isRecord(value)) return value
  const keys = new Set(Object.keys(value))
  const renamed = Object.entries(value).map(([key, entry]) => {
    const now = aliases[key] ?? key
    if (now !== key && keys.has(now)) {
      throw new UserError(
        `${origin(key)}: '${key}' and '${now}' are two words for the same thing: leave one of them out`,
      )
    }
    return [now, entry] as const
  })
  return Object.fromEntries(renamed)
}
