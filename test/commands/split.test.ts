import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readList } from '#dist/train/data/dataset.js'
import { chooseBalanced, countOf, makeLists, type SplitOptions, writeLists } from '#dist/train/data/splits.js'
import { UserError } from '#dist/train/error.js'
import { Random } from '#dist/train/random.js'

const test = suite('split')
const folder = mkdtempSync(join(tmpdir(), 'split-'))
const at = (...names: string[]) => join(folder, ...names)

test.before(() => {
  mkdirSync(at('images'))
  mkdirSync(at('labels'))
  for (let i = 0; i < 20; i++) {
    writeFileSync(at('images', `photo ${i}.jpg`), '')
    if (i >= 16) continue
    // Class 0 is everywhere, class 1 in every fourth image, class 2 in one, and 255 is ignored.
    const data = Uint8Array.of(0, i % 4 === 0 ? 1 : 0, i === 5 ? 2 : 0, 255)
    writeFileSync(at('labels', `photo ${i}.png`), encode({ width: 2, height: 2, channels: 1, data }))
  }
})
test.after(() => rmSync(folder, { recursive: true }))

function run(...args: string[]) {
  const result = spawnSync(process.execPath, [join('dist', 'split.js'), '--data-root', folder, ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { code: result.status, stdout: result.stdout, errors: result.stderr.split('\n').filter((l) => l !== '') }
}

/** What the command does, in this process. */
async function split(changes: Partial<SplitOptions>, out: string): Promise<void> {
  const defaults = { dataRoot: folder, ignoreIndex: 255, seed: 0 }
  writeLists(await makeLists({ ...defaults, ...changes }), out, false)
}

const folders = { images: 'images', labels: 'labels' }
const lines = (...names: string[]) =>
  readFileSync(at(...names), 'utf8')
    .split('\n')
    .filter((line) => line !== '')

async function refuses(pattern: RegExp, changes: Partial<SplitOptions>): Promise<void> {
  try {
    await split(changes, at('refused'))
  } catch (error) {
    assert.instance(error, UserError)
    const { message } = error as UserError
    assert.not.ok(message.includes('\n'), message)
    assert.match(message, pattern)
    assert.not.ok(existsSync(at('refused')), 'something was written')
    return
  }
  assert.unreachable(`nothing was refused; expected ${pattern}`)
}

test('parts are rounded up as in the official splits', () => {
  const expected: [string, number, number][] = [
    ['1/16', 10582, 662],
    ['1/8', 10582, 1323],
    ['1/4', 2975, 744],
    ['0.5', 2975, 1488],
    ['0.1', 30, 3],
    ['7', 30, 7],
    ['1', 30, 1],
    ['1.0', 30, 30],
  ]
  for (const [text, total, count] of expected) assert.is(countOf(text, total, '--labeled'), count, text)
  for (const text of ['0', '31', '2/1', '1/0', '-1', 'x', '1e9', '.', '']) {
    assert.throws(() => countOf(text, 30, '--labeled'), /--labeled/, text)
  }
})

test('lists from folders hold every image once and can be read for training', () => {
  const where = ['--images', 'images', '--labels', 'labels', '--out', at('first')]
  const { code, stdout, errors } = run(...where, '--labeled', '1/4', '--val', '2')
  assert.is(code, 0, errors.join('\n'))
  assert.match(stdout, /unlabeled\.txt: 14 images/)
  const all = ['labeled.txt', 'unlabeled.txt', 'val.txt'].flatMap((name) => lines('first', name))
  assert.is(lines('first', 'labeled.txt').length, 4)
  assert.is(lines('first', 'val.txt').length, 2)
  assert.is(new Set(all.map((line) => line.split('\t')[0])).size, 20)
  assert.is(readList(at('first', 'labeled.txt'), folder, 'required').length, 4)
  assert.is(readList(at('first', 'unlabeled.txt'), folder, 'unused').length, 14)
  assert.equal(readdirSync(at('first')).sort(), ['labeled.txt', 'unlabeled.txt', 'val.txt'])
  const before = readFileSync(at('first', 'labeled.txt'), 'utf8')
  const again = run(...where, '--labeled', '6')
  assert.is(again.code, 1)
  assert.is(again.errors.length, 1)
  assert.match(again.errors[0] ?? '', /is there already.*--overwrite/)
  assert.is(readFileSync(at('first', 'labeled.txt'), 'utf8'), before)
  assert.is(run(...where, '--labeled', '6', '--overwrite').code, 0)
  assert.is(lines('first', 'labeled.txt').length, 6)
})

test('the seed alone decides', async () => {
  for (const [out, seed] of [
    ['a', 3],
    ['b', 3],
    ['c', 4],
  ] as const) {
    await split({ ...folders, labeled: '8', seed }, at('seeds', out))
  }
  assert.equal(lines('seeds', 'a', 'labeled.txt'), lines('seeds', 'b', 'labeled.txt'))
  assert.not.equal(lines('seeds', 'a', 'labeled.txt'), lines('seeds', 'c', 'labeled.txt'))
})

test('an unlabeled list is completed as the rest', async () => {
  await split({ ...folders, labeled: '5' }, at('rest'))
  const before = lines('rest', 'unlabeled.txt')
  const labeledList = at('rest', 'labeled.txt')
  await split({ ...folders, labeledList }, at('rest', 'again'))
  assert.equal(lines('rest', 'again', 'unlabeled.txt'), before)
  assert.not.ok(existsSync(at('rest', 'again', 'labeled.txt')))
  writeFileSync(at('all.txt'), [...lines('rest', 'labeled.txt'), ...before].join('\n'))
  await split({ list: at('all.txt'), labeledList }, at('rest', 'list'))
  assert.equal(lines('rest', 'list', 'unlabeled.txt'), before)
})

test('balanced lists show the rare classes', async () => {
  for (let seed = 0; seed < 3; seed++) {
    const out = at('balanced', String(seed))
    await split({ ...folders, labeled: '3', balanced: true, seed }, out)
    const text = readFileSync(join(out, 'labeled.txt'), 'utf8')
    assert.match(text, /photo 5\.jpg/)
    assert.match(text, /photo (0|4|8|12)\.jpg/)
  }
})

test('balancing gives each class its turn, and fills up where classes run out', () => {
  const classes = Array.from({ length: 100 }, (_, i) => (i < 90 ? [0] : i < 97 ? [1] : [2]))
  const chosen = chooseBalanced(classes, 9, new Random(1))
  const shown = [0, 1, 2].map((label) => chosen.filter((i) => classes[i]?.includes(label)).length)
  assert.equal(shown, [3, 3, 3])
  assert.is(chooseBalanced(classes, 100, new Random(1)).length, 100)
  assert.is(new Set(chooseBalanced([[], [], [1]], 3, new Random(2))).size, 3)
})

test('bad input is refused with one line, and nothing is written', async () => {
  await refuses(/either --images/, { labeled: '3' })
  await refuses(/either --labeled/, folders)
  await refuses(/17.*there are 16/, { ...folders, labeled: '17' })
  await refuses(/all labeled images are taken/, { ...folders, labeled: '1', val: '16' })
  await refuses(/no image has a label/, { images: 'images', labeled: '3' })
  await refuses(/nowhere/, { images: 'nowhere', labeled: '3' })
  await refuses(/outside/, { images: '../', labeled: '3' })
  await refuses(/label_suffix/, { images: 'images', labels: 'images', labeled: '3' })
  writeFileSync(at('strange.txt'), 'images/other.jpg labels/other.png\n')
  await refuses(/strange\.txt line 1.*not among/, { ...folders, labeledList: at('strange.txt') })
  writeFileSync(at('twice.txt'), 'a.jpg a.png\nb.jpg b.png\na.jpg a.png\n')
  await refuses(/twice\.txt line 3.*already/, { list: at('twice.txt'), labeled: '1' })
  writeFileSync(at('out.txt'), '../a.jpg a.png\n')
  await refuses(/out\.txt line 1.*outside/, { list: at('out.txt'), labeled: '1' })
  writeFileSync(at('broken.png'), 'not a picture')
  writeFileSync(at('broken.txt'), 'a.jpg broken.png\n')
  await refuses(/broken\.png.*not a PNG/, { list: at('broken.txt'), labeled: '1', balanced: true })
})

test('help shows examples', () => {
  const { code, stdout } = run('--help')
  assert.is(code, 0)
  assert.match(stdout, /Examples:\n {2}node dist\/split\.js/)
})

test.run()
