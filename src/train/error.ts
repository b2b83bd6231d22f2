import { AtrousError } from '../engine/error.js'

/** What an error says, whatever was thrown. */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const maxLength = 2000

/** One line of bounded length without control characters: names in it come from files, which may hold anything. */
function oneLine(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
  return line.length > maxLength ? `${line.slice(0, maxLength / 2)} ... ${line.slice(-maxLength / 2)}` : line
}

/**
 * A mistake of the user's, or of the user's files: its message is one line that names the culprit and the remedy.
 * Commands print the message alone and exit with code 1; any other error is a fault of the program and keeps its stack.
 */
export class UserError extends AtrousError {
  override name = 'UserError'

  constructor(message: string, options?: ErrorOptions) {
    super(oneLine(message), options)
  }
}

/** A file that cannot be opened, or whose content is damaged: an earlier one may do instead. */
export class DamagedFileError extends UserError {
  override name = 'DamagedFileError'
}

/** A file or folder that cannot be written now, and perhaps later. */
export class WriteError extends UserError {
  override name = 'WriteError'

  constructor(
    readonly path: string,
    readonly reason: string,
  ) {
    super(`cannot write ${path}: ${reason}`)
  }
}
