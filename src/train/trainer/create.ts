import type { Device } from '../../engine/device.js'
import { dryDevice } from '../../engine/dry-device.js'
import { setKernelSelection } from '../../engine/kernel-selection.js'
import { Store } from '../../engine/store.js'
import { createModel } from '../../models/index.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { explainFit, type StepSize } from './memory-advice.js'
import type { TrainerOptions, TrainerSettings } from './options.js'
import { Trainer } from './trainer.js'

/**
 * Compiles the training step of a method.
 * @param model the method's first model, whose weights are trained in place
 * @throws Error that names the operator or the kernel that cannot run
 */
export async function createTrainer(
  device: Device,
  model: SegmentationModel,
  settings: TrainerSettings,
  options: TrainerOptions,
): Promise<Trainer> {
  try {
    return await Trainer.create(device, model, settings, options)
  } catch (error) {
    const { labeled, height, width } = options
    const { micro_batch: images = labeled } = settings
    const plan = (size: StepSize) => planStep(device, model, settings, options, size)
    const { multiple } = model
    throw await explainFit(error, { images, crop: Math.max(height, width), settings, multiple, plan })
  }
}

/** Plans the step of a model like this one, of a batch taken whole, at another size, on a device that allocates nothing. */
async function planStep(
  real: Device,
  model: SegmentationModel,
  settings: TrainerSettings,
  { pretrain, onProgress, ...options }: TrainerOptions,
  { images, crop }: StepSize,
): Promise<void> {
  const { device } = dryDevice(real)
  // Kernels are not measured for a step that does not run.
  setKernelSelection(device, undefined)
  const unlabeled = Math.ceil((options.unlabeled * images) / options.labeled)
  const sizes = { labeled: images, unlabeled, height: crop, width: crop }
  const like = createModel(new Store(device, model.store.label), model)
  await Trainer.create(device, like, { ...settings, micro_batch: undefined }, { ...options, ...sizes, planned: true })
}
