import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { UserError } from './error.js'
import { writeAtomically } from './files.js'

/**
 * Writes a file into a folder, which is made when it is missing; the file is complete or absent.
 * @throws UserError where that is impossible
 */
export function writeOutput(folder: string, name: string, content: Uint8Array | string): void {
  try {
    mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw new UserError(`cannot make the folder ${folder}: ${error instanceof Error ? error.message : String(error)}`)
  }
  writeAtomically(join(folder, name), [typeof content === 'string' ? new TextEncoder().encode(content) : content])
}
