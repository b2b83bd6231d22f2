// A method whose model reads DCT coefficients: from the loader's threads to the checkpoint that is evaluated.
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { normalizeCoefficients } from '#dist/kernels/coefficients.js'
import { cutmix } from '#dist/kernels/images.js'
import { add, scale } from '#dist/kernels/pointwise.js'
import { chooseModel } from '#dist/models/index.js'
import { logits, lowLogits } from '#dist/models/segmentation.js'
import { openModel, readModel } from '#dist/train/checkpoint/load-model.js'
import { loadConfig } from '#dist/train/config/load.js'
import { evaluationSamples, readList } from '#dist/train/data/dataset.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { createDisplay } from '#dist/train/logging/terminal.js'
import { registerMethod } from '#dist/train/methods/index.js'
import { pseudoLabels, supervisedLoss } from '#dist/train/methods/losses.js'
import type { Method } from '#dist/train/methods/method.js'
import { labeledMetric, labeledStream } from '#dist/train/methods/supervised.js'
import { train } from '#dist/train/run/training.js'
import { assertSameRun } from '../../support/same-run.js'
import { smallModel } from '../../support/small-model.js'
import { tinyData } from '../../support/tiny-run.js'

const nclass = 6
const { stem, ...residual } = smallModel

/** Labels, and pseudo-labels of the weak view for the strong one, on coefficients alone. */
const method: Method<Record<never, never>> = {
  name: 'coefficients',
  description: 'pseudo-labels on coefficients, for tests',
  keys: {},
  models: () => [chooseModel({ backbone: 'resnet50_dct', nclass, model: residual })],
  layout: () => [
    { ...labeledStream, fields: { dct_x: { view: 'coefficients' }, mask_x: { view: 'label' } } },
    {
      name: 'unlabeled',
      split: 'unlabeled',
      purpose: { order: 100, sample: 101 },
      fields: {
        dct_w: { view: 'coefficients' },
        dct_s: { view: 'coefficients', draw: 1 },
        grid_box: { view: 'gridBox', draw: 1 },
      },
    },
  ],
  create(context) {
    const { settings, batch, size } = context
    const model = context.model(0, 'model')
    const training = { training: true }
    return {
      trained: [model],
      deployed: [{ name: 'model', model }],
      metrics: [labeledMetric],
      losses() {
        const classes = { name: 'CELoss', kwargs: {} } as const
        const input = (field: string) => normalizeCoefficients(batch(field))
        const scores = logits(model, input('dct_x'), training, size)
        const labeled = supervisedLoss(scores, batch('mask_x'), settings.criterion, settings.ignore_index)
        const [weak, strong] = [input('dct_w'), input('dct_s')]
        const { label } = pseudoLabels(lowLogits(model, weak, { training: false }), size)
        const mixed = cutmix(strong, weak, batch('grid_box'))
        const consistency = supervisedLoss(logits(model, mixed, training, size), label, classes, 255)
        return { total: add(labeled, scale(consistency, 0.5)), metrics: { loss_x: labeled } }
      },
    }
  },
}

const { folder, config: file, remove } = await tinyData('coefficients')
const device = await open()
test.after(() => {
  remove()
  device.destroy()
})
registerMethod(method)
const display = createDisplay({ write: () => {} })

test('it trains with the same bits for any number of threads, and what it learned is evaluated', async () => {
  const into = (name: string, workers: number) => {
    const config = loadConfig(file, [`method=coefficients`, `workers=${workers}`])
    return train(device, { config, savePath: join(folder, name), tune: false, display })
  }
  await into('one', 1)
  await into('two', 2)
  assertSameRun(join(folder, 'one'), join(folder, 'two'))
  const path = join(folder, 'one', 'best.safetensors')
  const loaded = readModel(path)
  assert.is(loaded.config.family, 'resnet_dct')
  const model = openModel(device, loaded)
  const config = loadConfig(file, [])
  const evaluator = new Evaluator(device, model, { mode: config.eval_mode })
  const list = readList(config.val_id_path ?? '', config.data_root, 'required')
  const { miou } = await evaluator.evaluate(evaluationSamples(list, config))
  assert.is(miou, JSON.parse(readSafetensors(path).metadata.miou ?? ''))
  evaluator.destroy()
  model.store.destroy()
})

test.run()
