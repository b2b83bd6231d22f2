import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { chooseModel, createModel, type ModelChoice } from '#dist/models/index.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import type { TrainerOptions, TrainerSettings } from '#dist/train/trainer/options.js'
import type { Trainer } from '#dist/train/trainer/trainer.js'

/** Models of the step: the widths of the reference trajectories, and the full ones. */
export const stepModels = {
  small: {
    nclass: 5,
    model: {
      stem: [8, 8, 16],
      planes: [8, 12, 16, 32],
      blocks: [1, 2, 1, 2],
      reduce_channels: 6,
      aspp_channels: 16,
      fuse_channels: 24,
    },
  },
  resnet50: { nclass: 21, backbone: 'resnet50' },
  resnet101: { nclass: 21, backbone: 'resnet101' },
  xception: { nclass: 81, backbone: 'xception' },
} as const satisfies Record<string, ModelChoice>

/** The training step of a model with as many unlabeled images as labeled ones, where the method has any. */
export async function stepTrainer(
  device: Device,
  choice: ModelChoice,
  method: string,
  { crop, batch }: { crop: number; batch: number },
  amp = false,
  ranks: Pick<TrainerOptions, 'exchange'> & Pick<TrainerSettings, 'sync_batchnorm'> = {},
): Promise<Trainer> {
  const model = createModel(new Store(device, 'model'), chooseModel(choice))
  const config = {
    method,
    seed: 0,
    batch_size: batch,
    dataset: 'pascal',
    epochs: 10,
    lr: 0.001,
    lr_multi: 10,
    criterion: { name: 'CELoss', kwargs: {} },
    conf_thresh: 0.5,
    prev: { list_max_len: 1, model_num: 1, random_select: false, conf_thresh: 0.5, base_only_epoch: 0 },
    ignore_index: 255,
    sync_batchnorm: ranks.sync_batchnorm,
  } as const
  const sizes = { labeled: batch, unlabeled: batch, height: crop, width: crop }
  return createTrainer(device, model, config, { iterationsPerEpoch: 100, amp, exchange: ranks.exchange, ...sizes })
}
