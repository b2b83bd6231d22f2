// configs/co-training-*.yaml are what the published configurations and logs of Diverse Co-training have.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, loadConfig } from '#dist/train/config/load.js'
import type { coTraining } from '#dist/train/methods/co-training.js'
import { modelsOf } from '#dist/train/methods/index.js'
import type { Settings } from '#dist/train/methods/method.js'

type CoTrainingConfig = Config & Settings<typeof coTraining.keys>

const pascal = {
  crop_size: 321,
  batch_size: 16,
  epochs: 80,
  lr: 0.002,
  lr_multi: 10,
  criterion: { name: 'CELoss', kwargs: { ignore_index: 255 } },
  eval_mode: 'original',
}

const published = {
  'pascal-321': pascal,
  'pascal-513': { ...pascal, crop_size: 513 },
  cityscapes: {
    crop_size: 769,
    batch_size: 8,
    epochs: 240,
    lr: 0.005,
    lr_multi: 1,
    criterion: { name: 'OHEM', kwargs: { ignore_index: 255, thresh: 0.7, min_kept: 100000 } },
    eval_mode: 'sliding_window',
  },
}

/** Strides in place of which there are dilations, multi-grid, and dilations of the ASPP. */
const geometry = {
  pascal: { replace_stride_with_dilation: [false, false, true], multi_grid: [1, 1, 1], dilations: [6, 12, 18] },
  cityscapes: { replace_stride_with_dilation: [false, true, true], multi_grid: [2, 2, 4], dilations: [12, 24, 36] },
}

for (const [name, settings] of Object.entries(published)) {
  test(`${name}: settings of the training, and members`, () => {
    const config = loadConfig(`configs/co-training-${name}.yaml`) as CoTrainingConfig
    assert.is(config.method, 'co-training')
    const common = { conf_thresh: 0, unlabeled_weight: 1, amp: false }
    for (const [key, value] of Object.entries({ ...settings, ...common }))
      assert.equal(config[key as keyof CoTrainingConfig], value, key)
    const dataset = config.dataset as 'pascal' | 'cityscapes'
    const [cnn, dct, segformer] = modelsOf(config).map(({ config }) => config)
    for (const residual of [cnn, dct]) {
      const own = Object.keys(geometry[dataset]).map((key) => [key, residual?.[key]])
      assert.equal(Object.fromEntries(own), geometry[dataset])
      assert.equal(residual?.blocks, [3, 4, 6, 3])
    }
    assert.equal([cnn?.family, dct?.family], [undefined, 'resnet_dct'])
    assert.equal([segformer?.depths, segformer?.head_channels], [[3, 4, 6, 3], 256])
    assert.is(cnn?.nclass, dataset === 'pascal' ? 21 : 19)
  })
}

test.run()
