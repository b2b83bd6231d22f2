// What a segmenter asks of the system, where there is none: pages. See files-node.ts.
import { UserError } from '../train/error.js'
import { sha256 } from '../train/io/sha256.js'
import type * as node from './files-node.js'

export const digestOf: typeof node.digestOf = sha256

export const withFile: typeof node.withFile = (path) => {
  throw new UserError(`cannot open ${path}: a page reads no paths: give the bytes, or the File that was chosen`)
}

export const writeAtomically: typeof node.writeAtomically = (path) => {
  throw new UserError(`cannot write ${path}: a page writes no paths: offer what toBytes gives as a download`)
}
