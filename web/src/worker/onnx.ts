import { onnxOf } from '#dist/onnx/export.js'
import type { LoadedModel } from '#dist/train/checkpoint/loaded-model.js'
import { stateOfFile } from '#dist/train/checkpoint/parse.js'
import { joinBytes } from '#dist/train/io/byte-source.js'

/**
 * The network of a file as ONNX, so that a page without a GPU can predict.
 * @throws UserError where it has no counterpart there
 */
export function onnxOfFile(loaded: LoadedModel): Uint8Array<ArrayBuffer> {
  const { classNames, palette, checkpoint, path } = loaded
  const metadata = { class_names: JSON.stringify(classNames), palette: JSON.stringify(palette) }
  return joinBytes(onnxOf(loaded, stateOfFile(checkpoint.tensors), path, { metadata }))
}
