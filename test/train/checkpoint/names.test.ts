// Which name a tensor of a file has in a model here.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { rename } from '#dist/train/checkpoint/names.js'

const test = suite('names')
const landmark = 'layer1.0.conv1.weight'
const parts = [landmark, 'conv1.0.weight', 'bn1.bias']
const whole = [...parts.map((name) => `backbone.${name}`), 'head.b0.0.weight', 'classifier.bias']

const of = (names: readonly string[]) => rename(new Map(names.map((name) => [name, name])))
const after = (names: readonly string[]) => [...of(names).tensors.keys()]
const wrapped = (prefix: string, names: readonly string[] = whole) => names.map((name) => prefix + name)

test('names of a model here stay, and nothing is said', () => {
  for (const names of [whole, parts, wrapped('backbone.', parts), ['w'], [], ['model', 'net.']]) {
    const { tensors, changes, several } = of(names)
    assert.equal(
      [...tensors],
      names.map((name) => [name, name]),
    )
    assert.equal([changes, several], [[], []])
  }
})

test('any prefix of the one network of a file is taken off, and what stands outside of it is left aside', () => {
  for (const prefix of [
    'module.',
    'model.',
    '_orig_mod.',
    'module._orig_mod.',
    'model.module.net.',
    'student.',
    'a.b.',
  ]) {
    assert.equal(after(wrapped(prefix)), whole, prefix)
    assert.equal(of(wrapped(prefix)).changes, [`prefix '${prefix}' taken off`])
    const { tensors, changes } = of([...wrapped(prefix), 'criterion.weight', 'zz'])
    assert.equal([...tensors.keys()], whole, prefix)
    assert.match(changes.join('; '), '2 tensors outside of it left aside, such as criterion.weight')
  }
  assert.equal(after(wrapped('module.encoder_q.', [...parts, 'fc.weight'])), [...parts, 'fc.weight'])
})

test('usual wrappers are taken off where no network is recognised, others are not', () => {
  assert.equal(after(['module.model.a', 'module.model.b.c']), ['a', 'b.c'])
  assert.equal(after(['module.a', 'b']), ['module.a', 'b'])
  assert.equal(after(['other.a', 'other.b']), ['other.a', 'other.b'])
})

test('wrappers of parts are taken off', () => {
  const names = ['backbone._orig_mod.layer1._orig_mod.0.conv1.weight', 'head._orig_mod.b0.0.weight', 'classifier.bias']
  const { tensors, changes, nameInFile } = of(names)
  assert.equal([...tensors.keys()], [`backbone.${landmark}`, 'head.b0.0.weight', 'classifier.bias'])
  assert.match(changes.join(), 'wrappers of its parts taken off, such as in backbone._orig_mod.')
  assert.is(nameInFile('head.b0.0.weight'), 'head._orig_mod.b0.0.weight')
  assert.equal(after(['a._orig_mod.w', 'a.w']), ['a._orig_mod.w', 'a.w'], 'both would be a.w')
})

test('encoder. and the stem of mmsegmentation are read as what they are here', () => {
  const theirs = [landmark, 'stem.0.weight', 'stem.7.bias']
  const mmseg = wrapped('backbone.', theirs)
  assert.equal(after(theirs), parts)
  assert.equal(after([...mmseg, 'decode_head.conv_seg.bias']), [
    ...wrapped('backbone.', parts),
    'decode_head.conv_seg.bias',
  ])
  const { tensors, changes, nameInFile } = of([...wrapped('model.encoder.', theirs), 'model.head.b0.0.weight'])
  assert.equal([...tensors.keys()], [...wrapped('backbone.', parts), 'head.b0.0.weight'])
  assert.is(changes.length, 4)
  assert.is(nameInFile('backbone.bn1.bias'), 'model.encoder.stem.7.bias')
  // Tensors that are missing in the file, as they would be named there.
  assert.is(nameInFile('backbone.bn1.weight'), 'model.encoder.stem.7.weight')
  assert.is(nameInFile('backbone.conv1.3.weight'), 'model.encoder.stem.3.weight')
  assert.is(nameInFile('classifier.bias'), 'model.classifier.bias')
  assert.equal(after([landmark, 'stem.0.weight', 'conv1.0.weight']), [landmark, 'stem.0.weight', 'conv1.0.weight'])
})

test('the decoder of the code of Diverse Co-training has the names of one here', () => {
  const theirs = whole.map((name) => (name.startsWith('backbone.') ? name : `head.${name}`))
  const { tensors, changes, nameInFile } = of(theirs)
  assert.equal([...tensors.keys()], whole)
  assert.equal(changes, ["'head.head.' read as 'head.'", "'head.classifier.' read as 'classifier.'"])
  assert.is(nameInFile('classifier.weight'), 'head.classifier.weight')
  assert.is(nameInFile('head.b1.0.weight'), 'head.head.b1.0.weight')
})

test('of several networks none is chosen', () => {
  const { several, tensors } = of([...wrapped('student.'), ...wrapped('teacher.')])
  assert.equal(several, ['student.', 'teacher.'])
  assert.is(tensors.size, 2 * whole.length)
  assert.is(tensors.get('teacher.classifier.bias'), 'teacher.classifier.bias')
})

test('a hundred thousand names take no longer than reading them', () => {
  const names = Array.from({ length: 100_000 }, (_, i) => `${'a.'.repeat(20)}${i}.${landmark}`)
  const start = performance.now()
  assert.is(of(names).several.length, names.length)
  assert.ok(performance.now() - start < 5000)
})

test.run()
