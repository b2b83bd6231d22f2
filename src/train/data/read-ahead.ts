import { UserError } from '../error.js'

/**
 * Reads items in order, with up to `count` more under way while one is in use.
 * @returns what each gave, or why it cannot be read
 * @throws any other error in its item's turn, which may be after it happened
 */
export async function* readAhead<T, R>(
  items: readonly T[],
  read: (item: T) => Promise<R>,
  count: number,
): AsyncGenerator<R | UserError, void, undefined> {
  const ahead: Promise<R>[] = []
  for (let next = 0, i = 0; i < items.length; i++) {
    for (; next < items.length && next <= i + count; next++) {
      const reading = read(items[next] as T)
      // Without this one that fails early would end the process.
      reading.catch(() => {})
      ahead.push(reading)
    }
    let result: R | UserError
    try {
      result = await (ahead.shift() as Promise<R>)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      result = error
    }
    yield result
  }
}
