import type { Device } from '#dist/engine/device.js'
import { elements } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { Random } from '#dist/train/random.js'
import { smallModel } from './small-model.js'

/** A small network whose labels differ from place to place: weights as they are drawn favour one class everywhere. */
export function variedModel(device: Device, nclass: number): SegmentationModel {
  const spec = { architecture: 'deeplabv3plus', config: { ...smallModel, nclass } }
  const model = createModel(new Store(device, 'model'), spec, new Random(2))
  const random = new Random(3)
  for (const { name, spec } of model.store.all()) {
    const deviation = spec.shape.length === 4 ? 1 : name.endsWith('.bias') ? 0.5 : 0
    const draw = () => random.normal() * deviation
    if (deviation > 0) model.store.write(name, Float32Array.from({ length: elements(spec.shape) }, draw))
  }
  return model
}
