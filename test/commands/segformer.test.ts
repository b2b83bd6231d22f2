// A SegFormer from its training to its predictions, by the commands.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { run, tinyData } from '../support/tiny-run.js'

const { folder, data, config, trainInto, remove } = await tinyData('segformer')
test.after(remove)

const widths =
  'model={architecture: segformer, embed_dims: [4, 8, 12, 16], depths: [1, 1, 1, 1], num_heads: [1, 2, 3, 4], ' +
  'mlp_ratio: 2, head_channels: 8}'
const settings = ['--set', widths, '--set', 'method=unimatch']
const best = join(folder, 'run', 'best.safetensors')

const done = ({ code, errors }: ReturnType<typeof run>): void => assert.is(code, 0, errors.join('\n'))

test('it trains, resumes and is evaluated, drawn and converted by what its checkpoint says', () => {
  done(trainInto('run', ...settings, '--set', 'epochs=1'))
  done(trainInto('run', ...settings, '--resume', join(folder, 'run', 'latest.safetensors')))
  const list = join(data, 'val.txt')
  const evaluated = run('evaluate.js', [
    '--config',
    config,
    ...settings.slice(0, 2),
    '--ckpt-path',
    best,
    '--out',
    join(folder, 'scores'),
  ])
  done(evaluated)
  assert.match(evaluated.stdout, /mIoU/)
  const images = join(data, 'images')
  const out = join(folder, 'masks')
  done(run('predict.js', ['--images', existsSync(images) ? images : list, '--ckpt-path', best, '--out', out]))
  assert.ok(readdirSync(out).length > 0)
  done(run('convert.js', [best, join(folder, 'model.onnx')]))
})

test('a checkpoint and a configuration of different architectures are told apart', () => {
  const { code, errors } = run('evaluate.js', ['--config', config, '--ckpt-path', best])
  assert.is(code, 1)
  assert.match(errors.join(), /is of a segformer, but the configuration asks for a deeplabv3plus/)
})

test.run()
