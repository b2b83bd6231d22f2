// configs/unimatch-v2-*.yaml are what the published configurations and logs of UniMatch V2 have.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, loadConfig } from '#dist/train/config/load.js'
import { modelsOf } from '#dist/train/methods/index.js'
import type { Settings } from '#dist/train/methods/method.js'
import type { unimatchV2 } from '#dist/train/methods/unimatch-v2.js'

type UniMatchV2Config = Config & Settings<typeof unimatchV2.keys>

const crossEntropy = { name: 'CELoss', kwargs: { ignore_index: 255 } }
const pascal = { nclass: 21, crop_size: 518, epochs: 60, batch_size: 16, micro_batch: 4, criterion: crossEntropy }
const hardPixels = { name: 'OHEM', kwargs: { ignore_index: 255, thresh: 0.7, min_kept: 200000 } }

const published = {
  pascal: { ...pascal, eval_mode: 'original' },
  cityscapes: {
    ...{ nclass: 19, crop_size: 798, epochs: 180, batch_size: 8, micro_batch: 2 },
    criterion: hardPixels,
    eval_mode: 'sliding_window',
  },
  ade20k: { ...pascal, nclass: 150, batch_size: 8, micro_batch: 2, reduce_zero_label: false, eval_mode: 'original' },
  coco: { ...pascal, nclass: 81, epochs: 20, eval_mode: 'original' },
}

const common = {
  method: 'unimatch-v2',
  lr: 5e-6,
  lr_multi: 40,
  weight_decay: 0.01,
  optimizer: { name: 'adamw', betas: [0.9, 0.999], eps: 1e-8 },
  lr_schedule: undefined,
  conf_thresh: 0.95,
  unimatch_v2: { ema_decay: 0.996 },
  epoch_of: undefined,
  amp: false,
  backbone: 'dinov2-small',
  lock_backbone: false,
}

for (const [name, settings] of Object.entries(published)) {
  test(name, () => {
    const config = loadConfig(`configs/unimatch-v2-${name}.yaml`) as UniMatchV2Config
    for (const [key, value] of Object.entries({ ...common, ...settings }))
      assert.equal(config[key as keyof UniMatchV2Config], value, key)
    const [model] = modelsOf(config)
    const { nclass, ...widths } = model.config
    assert.is(nclass, settings.nclass)
    assert.equal(widths, {
      ...{ dim: 384, heads: 6, depth: 12, taps: [2, 5, 8, 11], img_size: 518, patch: 14, mlp_ratio: 4 },
      ...{ out_channels: [48, 96, 192, 384], features: 64 },
    })
  })
}

test.run()
