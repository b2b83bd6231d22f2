import { tracingDevice } from '#dist/engine/dry-device.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { exportOnnx } from '#dist/onnx/export.js'
import type { LoadedModel } from '#dist/train/checkpoint/loaded-model.js'
import { stateOfFile } from '#dist/train/checkpoint/parse.js'
import { UserError } from '#dist/train/error.js'

/**
 * The network of a file as ONNX. It is traced without a device, so that a page without a GPU can predict.
 * @throws UserError where it has no counterpart there
 */
export function onnxOf(loaded: LoadedModel): Uint8Array<ArrayBuffer> {
  const { classNames, palette, checkpoint, path } = loaded
  const model = createModel(new Store(tracingDevice(), 'model'), loaded)
  const metadata = { class_names: JSON.stringify(classNames), palette: JSON.stringify(palette) }
  let parts: readonly Uint8Array[]
  try {
    parts = exportOnnx(model, stateOfFile(checkpoint.tensors), { metadata })
  } catch (error) {
    throw new UserError(`${path} cannot become ONNX: ${error instanceof Error ? error.message : String(error)}`)
  }
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
