import type { Recording } from './recording.js'

/** PrevMatch: files have the names of its fields, draws and metrics. */
export const prevmatchRecording: Recording = {
  method: 'prevmatch',
  matches: ({ members }) => members === undefined,
}
