// What a segmenter asks of the system, in Node: `#files` of package.json. A page has files-page.ts in its place.
export { withFile, writeAtomically } from '../train/io/files.js'
export { digestOf } from '../train/io/safetensors.js'
