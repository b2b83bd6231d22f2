import * as assert from 'uvu/assert'

/**
 * The message of what `body` throws.
 * @param kind the class that it must be of, for tests of what users see: an error that says the same by chance is a fault
 */
export async function messageOf(body: () => unknown, kind?: new (...args: never[]) => Error): Promise<string> {
  try {
    await body()
  } catch (error) {
    if (kind) assert.instance(error, kind, String(error))
    return error instanceof Error ? error.message : String(error)
  }
  throw new Error('nothing was thrown')
}
