import { onnxOf } from '#dist/onnx/export.js'
import type { LoadedModel } from '#dist/train/checkpoint/loaded-model.js'
import { stateOfFile } from '#dist/train/checkpoint/parse.js'
import { joinBytes } from '#dist/train/io/byte-source.js'
import type { OnnxFile, Size } from '../protocol.js'

/**
 * The network of a file as ONNX, so that a page without a GPU can predict: for pictures of any size where it computes all of
 * them alike, else for those of `size`.
 * @throws UserError where it has no counterpart there
 */
export function onnxOfFile(loaded: LoadedModel, size: Size): OnnxFile {
  const { classNames, palette, checkpoint, path } = loaded
  const metadata = { class_names: JSON.stringify(classNames), palette: JSON.stringify(palette) }
  const state = stateOfFile(checkpoint.tensors)
  try {
    return { bytes: joinBytes(onnxOf(loaded, state, path, { metadata })) }
  } catch {
    const fixed: [number, number] = [size.height, size.width]
    return { bytes: joinBytes(onnxOf(loaded, state, path, { metadata, size: fixed })), size }
  }
}
