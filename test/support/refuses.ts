import * as assert from 'uvu/assert'
import { UserError } from '#dist/train/error.js'

/** Asserts a UserError of one line in which all the parts occur. */
export async function refuses(action: () => unknown, ...parts: string[]): Promise<void> {
  try {
    await action()
  } catch (error) {
    assert.instance(error, UserError)
    const { message } = error as UserError
    assert.not.ok(message.includes('\n'), `more than one line: ${message}`)
    for (const part of parts) assert.ok(message.includes(part), `'${part}' is not in: ${message}`)
    return
  }
  assert.unreachable(`nothing was refused; expected ${parts.join(' ')}`)
}
