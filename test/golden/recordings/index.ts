import { UserError } from '#dist/train/error.js'
import { augsegRecording } from './augseg.js'
import { coTrainingRecording } from './co-training.js'
import { dualTeacherRecording } from './dual-teacher.js'
import { prevmatchRecording } from './prevmatch.js'
import type { RecordedConfig, Recording } from './recording.js'
import { unimatchV2Recording } from './unimatch-v2.js'

/** How recorded trainings are read, by method. */
const recordings: readonly Recording[] = [
  unimatchV2Recording,
  prevmatchRecording,
  augsegRecording,
  dualTeacherRecording,
  coTrainingRecording,
]

/** The recording that a `config.json` is of. Methods that share a way of recording are named by their configuration. */
export function recordingOf(config: RecordedConfig, origin: string): Recording {
  const { method } = config
  const named = recordings.find((recording) => recording.method === method)
  const found = named ?? recordings.find((recording) => recording.matches(config))
  if (!found) throw new UserError(`${origin}: there is no way to read a recorded training of this kind`)
  return found
}
