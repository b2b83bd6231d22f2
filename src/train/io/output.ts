import { join } from 'node:path'
import { makeFolder, writeAtomically } from './files.js'

/**
 * Writes a file into a folder, which is made when it is missing; the file is complete or absent.
 * @throws WriteError where that is impossible
 */
export function writeOutput(folder: string, name: string, content: Uint8Array | string): void {
  makeFolder(folder)
  writeAtomically(join(folder, name), [typeof content === 'string' ? new TextEncoder().encode(content) : content])
}
