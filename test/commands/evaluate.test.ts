// The commands evaluate and predict from end to end, on small scenes and a checkpoint of random weights.
import { cpSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { classNames, palette } from '#dist/demo/classes.js'
import { open } from '#dist/engine/node.js'
import { elements } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { openModel, readModel } from '#dist/train/checkpoint/load-model.js'
import { prepareCheckpoint } from '#dist/train/checkpoint/write.js'
import { readImage } from '#dist/train/data/dataset.js'
import { Evaluator, scoresOf } from '#dist/train/evaluation/evaluator.js'
import { Random } from '#dist/train/random.js'
import { smallModel } from '../support/small-model.js'
import { type CommandResult, run, tinyData } from '../support/tiny-run.js'

const { folder, data, remove } = await tinyData('evaluate')
const config = join(folder, 'tiny.yaml')
const checkpoint = join(folder, 'random.safetensors')
const bare = join(folder, 'bare.safetensors')
const widths = { ...smallModel, planes: [4, 4, 8, 8], nclass: 6 } as const
const device = await open()

test.before(async () => {
  const model = createModel(
    new Store(device, 'model'),
    { architecture: 'deeplabv3plus', config: widths },
    new Random(2),
  )
  // Weights as they are drawn favour one class everywhere; these differ from place to place.
  const random = new Random(3)
  for (const { name, spec } of model.store.all()) {
    const deviation = spec.shape.length === 4 ? 1 : name.endsWith('.bias') ? 0.5 : 0
    const draw = () => random.normal() * deviation
    if (deviation > 0) model.store.write(name, Float32Array.from({ length: elements(spec.shape) }, draw))
  }
  const named = await prepareCheckpoint(model, { epoch: 7, class_names: classNames, palette })
  named.write(checkpoint)
  const unnamed = await prepareCheckpoint(model, {})
  unnamed.write(bare)
})
test.after(() => {
  device.destroy()
  remove()
})

const png = (path: string) => decode(readFileSync(path))

/** What the checkpoint says of an image, without the commands. */
async function maskOf(path: string): Promise<Uint32Array> {
  const evaluator = new Evaluator(device, openModel(device, readModel(checkpoint)), { mode: 'original' })
  const { label } = await evaluator.predict(await readImage(path))
  evaluator.destroy()
  return label
}

/** One line on stderr that matches, exit code 1, and no output folder. */
function refuses(result: CommandResult, pattern: RegExp, out: string): void {
  assert.is(result.code, 1, result.errors.join('\n'))
  assert.is(result.errors.length, 1, result.errors.join('\n'))
  assert.match(result.errors[0] ?? '', pattern)
  assert.not.ok(existsSync(join(folder, out)), 'something was written')
}

const evaluate = (out: string, ...args: string[]) =>
  run('evaluate.js', ['--config', config, '--ckpt-path', checkpoint, '--out', join(folder, out), ...args])
const predict = (out: string, ...args: string[]) =>
  run('predict.js', ['--ckpt-path', checkpoint, '--out', join(folder, out), ...args])

const validation = () =>
  readFileSync(join(data, 'val.txt'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ').map((path) => join(data, path)) as [string, string])

test('evaluate prints protocol and table, and writes scores, the confusion matrix and masks', async () => {
  const { code, stdout, errors } = evaluate('whole', '--save-map')
  assert.is(code, 0, errors.join('\n'))
  const counts = new Float64Array(36)
  for (const [image, label] of validation()) {
    const mask = await maskOf(image)
    for (const [i, truth] of png(label).data.entries()) {
      const place = truth * 6 + (mask[i] ?? 0)
      counts[place] = (counts[place] ?? 0) + 1
    }
  }
  const scores = scoresOf(counts, 6)
  assert.match(stdout, /3 images, 6 classes; protocol: whole images at their own size; label 255 ignored/)
  assert.match(stdout, /after epoch 7/)
  assert.match(stdout, /evaluation: 3 images in 0:\d\d, [\d.]+ images\/s/)
  assert.match(stdout, `mIoU ${scores.miou.toFixed(2)} over all 6 classes`)
  const out = join(folder, 'whole')
  const json = JSON.parse(readFileSync(join(out, 'scores.json'), 'utf8')) as { miou: number; class_names: string[] }
  assert.is(json.miou, scores.miou)
  const csv = readFileSync(join(out, 'confusion.csv'), 'utf8').trim().split('\n').slice(1)
  assert.equal(
    csv.flatMap((line) => line.split(',').slice(1).map(Number)),
    [...counts],
  )
  assert.match(readFileSync(join(out, 'confusion.svg'), 'utf8'), /^<svg [\s\S]*>Confusion matrix<[\s\S]*<\/svg>\n$/)
  const names = validation().map(([image]) => image.replace(/^.*[/]|\.\w+$/g, ''))
  for (const kind of ['index', 'color']) {
    assert.equal(readdirSync(join(out, 'maps', kind)).sort(), names.map((name) => `${name}.png`).sort())
  }
  const [[first = ''] = []] = validation()
  const index = png(join(out, 'maps', 'index', `${names[0]}.png`))
  assert.equal([...index.data], [...(await maskOf(first))])
})

test('evaluate by other protocols, with the options of the configuration and its own', () => {
  const list = join(folder, 'one.txt')
  writeFileSync(list, `${readFileSync(join(data, 'val.txt'), 'utf8').split('\n')[0]}\n`)
  const crop = evaluate('crop', '--mode', 'center_crop', '--val-id-path', list, '--save-map', join(folder, 'crops'))
  assert.is(crop.code, 0, crop.errors.join('\n'))
  assert.match(crop.stdout, /1 images.*the 33x33 pixels in the middle/)
  const [name = ''] = readdirSync(join(folder, 'crops', 'index'))
  assert.equal(
    [png(join(folder, 'crops', 'index', name)).width, png(join(folder, 'crops', 'color', name)).height],
    [33, 33],
  )
  const views = evaluate('views', '--set', 'eval_mode=sliding_window', '--flip', '--scales', '0.75,1.25')
  assert.is(views.code, 0, views.errors.join('\n'))
  assert.match(views.stdout, /windows of 33 in steps of 22.*scale 0\.75, 1\.25, each also mirrored/)
})

test('evaluate names what it cannot use, before anything is written', () => {
  refuses(evaluate('a', '--set', 'nclass=4'), /trained with 6 classes, but the configuration has nclass 4/, 'a')
  refuses(evaluate('a', '--set', 'dilations=[1, 2, 4]'), /trained with dilations \[1, 2, 3\].*\[1, 2, 4\]/, 'a')
  refuses(evaluate('a', '--set', 'model.fuse_channels=4'), /fuse_channels 8 instead of 4/, 'a')
  refuses(evaluate('a', '--ckpt-path', join(folder, 'none.pth')), /none\.pth/, 'a')
  const truncated = join(folder, 'truncated.safetensors')
  cpSync(checkpoint, truncated)
  truncateSync(truncated, 5000)
  refuses(evaluate('a', '--ckpt-path', truncated), /truncated\.safetensors/, 'a')
  refuses(evaluate('a', '--val-id-path', join(folder, 'none.txt')), /there is no list .*none\.txt/, 'a')
  refuses(evaluate('a', '--scales', '0.75,big'), /expects numbers from 0\.1 to 4/, 'a')
  refuses(evaluate('a', '--mode', 'crop'), /center_crop/, 'a')
  refuses(evaluate('a', '--gpu', 'abacus'), /no adapter is named 'abacus'/, 'a')
  const copy = join(folder, 'damaged')
  cpSync(data, copy, { recursive: true })
  truncateSync(validation()[0]?.[0].replace(data, copy) ?? '', 100)
  refuses(evaluate('a', '--set', `data_root=${copy}`), /cannot read the image/, 'a')
  const file = join(folder, 'file')
  writeFileSync(file, '')
  const blocked = run('evaluate.js', ['--config', config, '--ckpt-path', checkpoint, '--out', file])
  assert.is(blocked.code, 1)
  assert.match(blocked.errors.join('\n'), /^error: .*file/)
})

test('predict writes masks, colours, overlays and a legend at the size of each picture', async () => {
  const [[image = ''] = []] = validation()
  const name = image.replace(/^.*[/]/, '')
  const { code, stdout, errors } = predict('plain', '--images', join(data, 'images', '*'))
  assert.is(code, 0, errors.join('\n'))
  assert.match(stdout, /prediction: 11 images in 0:\d\d, [\d.]+ images\/s/)
  const out = join(folder, 'plain')
  const mask = await maskOf(image)
  assert.ok(new Set(mask).size > 2)
  assert.equal([...png(join(out, 'masks', name)).data], [...mask])
  const color = png(join(out, 'colors', name))
  const [first = 0] = mask
  assert.equal([...color.data.subarray(0, 3)], [...(palette[first] ?? [])])
  for (const kind of ['masks', 'colors', 'overlays']) {
    assert.is(readdirSync(join(out, kind)).length, 11)
    assert.equal([png(join(out, kind, name)).width, png(join(out, kind, name)).height], [48, 48])
  }
  assert.is(readFileSync(join(out, 'legend.svg'), 'utf8').match(/<rect /g)?.length, 1 + 6)
  const small = predict('small', '--images', image, '--img-size', '32', '--flip', '--scales', '1,1.5')
  assert.is(small.code, 0, small.errors.join('\n'))
  assert.equal(png(join(folder, 'small', 'masks', name)).width, 48)
  assert.not.equal([...png(join(folder, 'small', 'masks', name)).data], [...mask])
})

test('predict takes a checkpoint without names and colours', () => {
  const [[image = ''] = []] = validation()
  const { code, errors } = predict('bare', '--images', image, '--ckpt-path', bare)
  assert.is(code, 0, errors.join('\n'))
  assert.ok(existsSync(join(folder, 'bare', 'legend.svg')))
})

test('predict goes on after images that cannot be read, names them, and exits with 1', () => {
  const mixed = join(folder, 'mixed')
  cpSync(join(data, 'images'), mixed, { recursive: true })
  const files = readdirSync(mixed).sort()
  truncateSync(join(mixed, files[1] ?? ''), 60)
  writeFileSync(join(mixed, 'aaa.jpg'), 'no picture')
  const { code, stdout, errors } = predict('some', '--images', mixed)
  assert.is(code, 1)
  assert.is(errors.length, 1, errors.join('\n'))
  assert.match(errors[0] ?? '', /2 of 12 images could not be read, such as: cannot read the image .*00001\.png/)
  assert.match(stdout, `left out: cannot read the image ${join(mixed, 'aaa.jpg')}`)
  assert.is(readdirSync(join(folder, 'some', 'masks')).length, 10)
})

test('predict names what it cannot use, before anything is written', () => {
  const [[image = ''] = []] = validation()
  refuses(predict('b', '--images', join(folder, 'none')), /none: there is no such file or folder/, 'b')
  refuses(predict('b', '--images', folder), /the folder holds no image/, 'b')
  refuses(predict('b', '--images', join(data, '*.tif')), /no image has such a name/, 'b')
  refuses(predict('b', '--images', image, '--ckpt-path', image), /\.png/, 'b')
  refuses(predict('b', '--images', image, '--img-size', '0'), /whole number from 16 to 16384/, 'b')
  const broken = join(folder, 'broken.png')
  writeFileSync(broken, 'no picture')
  refuses(predict('b', '--images', broken), /1 of 1 images could not be read/, 'b')
})

test('help shows examples', () => {
  for (const command of ['evaluate', 'predict']) {
    const { code, stdout } = run(`${command}.js`, ['--help'])
    assert.is(code, 0)
    assert.match(stdout, new RegExp(`Examples:\\n {2}node dist/${command}\\.js`))
  }
})

test.run()
