/**
 * A mistake of the user's, or of the user's files: its message is one line that names the culprit and the remedy.
 * Commands print the message alone and exit with code 1; any other error is a fault of the program and keeps its stack.
 */
export class UserError extends Error {
  override name = 'UserError'
}
