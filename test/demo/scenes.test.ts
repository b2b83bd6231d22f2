import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeScenes } from '#dist/demo/dataset.js'
import { classNames, palette, scene } from '#dist/demo/scenes.js'

const set = { seed: 3, size: 16, labeled: 2, unlabeled: 3, validation: 2 }

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'scenes-'))
  try {
    await body(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('a seed gives the same bytes on every machine', () => {
  const digest = createHash('sha256')
  for (const [seed, index, size] of [
    [1, 0, 64],
    [1, 1, 64],
    [2, 5, 33],
    [4000000000, 7, 48],
  ] as const) {
    const { image, label } = scene(seed, index, size)
    digest.update(image).update(label)
  }
  assert.is(digest.digest('hex'), 'd67cb94e881f37c4655f10abcf315547cd427dd983bfbb72a01f27fa10291e42')
})

test('seeds and indices give different scenes', () => {
  const hash = (seed: number, index: number): string =>
    createHash('sha256')
      .update(scene(seed, index, 16).image)
      .digest('hex')
  assert.is(new Set([hash(1, 0), hash(1, 1), hash(2, 0), hash(0, 1)]).size, 4)
})

test('every class has a sensible share of 50 scenes', () => {
  const size = 48
  const count = new Array<number>(classNames.length).fill(0)
  const scenes = new Array<number>(classNames.length).fill(0)
  for (let index = 0; index < 50; index++) {
    const { image, label } = scene(11, index, size)
    assert.is(image.length, size * size * 3)
    assert.is(label.length, size * size)
    const seen = new Set<number>()
    for (const value of label) {
      assert.ok(value < classNames.length)
      count[value] = (count[value] ?? 0) + 1
      seen.add(value)
    }
    for (const value of seen) scenes[value] = (scenes[value] ?? 0) + 1
  }
  for (const [k, name] of classNames.entries()) {
    const share = (count[k] ?? 0) / (50 * size * size)
    assert.ok(share > 0.03 && share < 0.4, `${name}: ${share} of the pixels`)
    assert.ok((scenes[k] ?? 0) >= 25, `${name}: in ${scenes[k]} of 50 scenes`)
  }
  assert.is(palette.length, classNames.length)
})

test('images use the range of a photograph', () => {
  let sum = 0
  for (let index = 0; index < 10; index++) for (const value of scene(5, index, 32).image) sum += value
  const mean = sum / (10 * 32 * 32 * 3)
  assert.ok(mean > 60 && mean < 180, `mean ${mean}`)
})

test('the lists name images and labels that exist and agree with the generator', () =>
  inFolder(async (folder) => {
    const paths = await writeScenes(join(folder, 'set'), set)
    const lines = async (file: string): Promise<string[]> => (await readFile(file, 'utf8')).trimEnd().split('\n')
    const labeled = await lines(paths.labeled)
    const unlabeled = await lines(paths.unlabeled)
    const validation = await lines(paths.validation)
    assert.equal([labeled.length, unlabeled.length, validation.length], [2, 3, 2])
    assert.ok(unlabeled.every((line) => /^images\/\d+\.png$/.test(line)))
    assert.ok([...labeled, ...validation].every((line) => /^images\/(\d+)\.png labels\/\1\.png$/.test(line)))
    assert.is(new Set([...labeled, ...unlabeled, ...validation]).size, 7)
    const [imageName = '', labelName = ''] = (validation[1] ?? '').split(' ')
    const imageBytes = await readFile(join(paths.root, imageName))
    const labelBytes = await readFile(join(paths.root, labelName))
    assert.equal([...imageBytes.subarray(24, 26)], [8, 2], '8-bit RGB')
    assert.equal([...labelBytes.subarray(24, 26)], [8, 0], '8-bit grey')
    const expected = scene(set.seed, set.unlabeled + 1, set.size)
    const image = decode(imageBytes).data
    const label = decode(labelBytes).data
    assert.equal([...image], [...expected.image])
    assert.equal([...label], [...expected.label])
  }))

test('every class can be seen in every labeled scene', () =>
  inFolder(async (folder) => {
    const paths = await writeScenes(join(folder, 'set'), { ...set, size: 32, labeled: 6 })
    for (const line of (await readFile(paths.labeled, 'utf8')).trimEnd().split('\n')) {
      const bytes = await readFile(join(paths.root, line.split(' ')[1] ?? ''))
      const label = decode(bytes).data
      for (const [k, name] of classNames.entries()) {
        const count = label.filter((value) => value === k).length
        assert.ok(count >= 0.03 * 32 * 32, `${name}: ${count} pixels of ${line}`)
      }
    }
  }))

test('a set that is there is kept, another one is replaced', () =>
  inFolder(async (folder) => {
    const target = join(folder, 'deep', 'set')
    let drawn = 0
    const progress = (): void => {
      drawn += 1
    }
    const paths = await writeScenes(target, set, progress)
    assert.is(drawn, 7)
    const before = (await stat(paths.labeled)).mtimeMs
    await writeScenes(target, set, progress)
    assert.is(drawn, 7)
    assert.is((await stat(paths.labeled)).mtimeMs, before)
    await writeScenes(target, { ...set, unlabeled: 1 }, progress)
    assert.is(drawn, 12)
    assert.is((await readdir(join(target, 'images'))).length, 5)
    assert.equal(await readdir(join(folder, 'deep')), ['set'], 'no temporary folder stays')
  }))

test('folders and files of others are left alone', () =>
  inFolder(async (folder) => {
    const other = join(folder, 'photos')
    await mkdir(other)
    await writeFile(join(other, 'a.txt'), 'mine')
    const refused = async (target: string): Promise<string> => {
      try {
        await writeScenes(target, set)
      } catch (error) {
        return String(error)
      }
      return 'accepted'
    }
    assert.match(await refused(other), /photos exists and holds no scenes/)
    assert.match(await refused(join(other, 'a.txt')), /a\.txt exists and holds no scenes/)
    assert.is(await readFile(join(other, 'a.txt'), 'utf8'), 'mine')
    assert.equal((await readdir(folder)).sort(), ['photos'])
  }))

test('numbers out of range are refused', async () => {
  try {
    await writeScenes('/nowhere', { ...set, labeled: 0 })
    assert.unreachable()
  } catch (error) {
    assert.match(String(error), /labeled is 0; it must be an integer of at least 1/)
  }
  assert.throws(() => scene(1, 0, 0), /scene size must be a positive integer/)
})

test.run()
