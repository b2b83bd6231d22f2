import type { SegmentationModel } from '../../models/segmentation.js'
import { checkStateDict, loadStateDict, missingIn, type StateTensor } from '../../models/weights.js'
import { UserError } from '../error.js'
import { reasonOf, withFile } from '../io/files.js'
import { digestOf } from '../io/safetensors.js'
import { type Checkpoint, checkSingle, diagnose, parseCheckpoint, stateOfFile } from './parse.js'

export { type Checkpoint, checkpointModel, loadWeights, parsed, stateOfFile } from './parse.js'

/**
 * Reads a file of weights: safetensors, or what torch.save wrote (`.pth`, `.pt`). Its content decides, not its name.
 *
 * @throws UserError naming the file and what is wrong with it, such as a tensor that is not finite
 */
export const readCheckpoint = (path: string): Checkpoint =>
  withFile(path, (source) => parseCheckpoint(source, digestOf))

interface BackboneState {
  readonly state: ReadonlyMap<string, StateTensor>
  /** What was loaded, in words. */
  readonly line: string
}

/**
 * The weights of a file for a model's backbone: those of a backbone alone, whose names may lack the prefix `backbone.`, or
 * of a whole model, of which the rest is left aside.
 * @throws UserError that says why they do not fit, and lists what is missing, unexpected or of another shape
 */
export function readBackbone(model: SegmentationModel, path: string): BackboneState {
  const { tensors, names, note } = readCheckpoint(path)
  checkSingle(names, `pretrained ${path}`)
  const prefix = 'backbone.'
  const whole = [...tensors.keys()].some((name) => name.startsWith(prefix))
  const named = [...stateOfFile(tensors)].map(([name, tensor]) => [whole ? name : prefix + name, tensor] as const)
  // The classifier of the image classification that it was trained for has no place here.
  const ofBackbone = named.filter(([name]) => name.startsWith(prefix) && !name.startsWith('backbone.fc.'))
  const { leftAside } = model.pretrained ?? {}
  const state = new Map(ofBackbone.filter(([name]) => !leftAside?.test(name.slice(prefix.length))))
  const nameInFile = (name: string) => names.nameInFile(whole ? name : name.slice(prefix.length))
  const mayLack = mayLackTensors(model, state)
  const missing = mayLack ? missingIn(model, state, prefix) : []
  try {
    checkStateDict(model, state, prefix, nameInFile, mayLack)
  } catch (error) {
    throw new UserError(
      `pretrained ${path}: ${diagnose(model, state)}${reasonOf(error)}: choose weights of the backbone that is configured, ` +
        "or give its widths in the section 'model'",
    )
  }
  const lacking = `; what it lacks keeps its initial values: ${missing.length} of the model's, such as ${missing[0]}`
  return { state, line: `backbone: weights of ${note ?? path}${missing.length > 0 ? lacking : ''}` }
}

/** A file without any tensor of the backbone is the wrong one, whatever may be missing. */
const mayLackTensors = ({ pretrained }: SegmentationModel, state: ReadonlyMap<string, unknown>): boolean =>
  pretrained?.mayLack === true && state.size > 0

/**
 * Gives a model's backbone the weights of a file.
 * @returns a line that says what was loaded
 * @throws UserError as `readBackbone`
 */
export function loadBackbone(model: SegmentationModel, path: string): string {
  const { state, line } = readBackbone(model, path)
  loadStateDict(model, state, 'backbone.', undefined, mayLackTensors(model, state))
  return line
}
