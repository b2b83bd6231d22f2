// What is kept of measurements: where, for which adapter, and beside other processes.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { AdapterSummary } from '#dist/engine/adapter.js'
import { cacheFolder, readTuning, TuningCache, writeTuning } from '#dist/train/tuning/tuning-cache.js'
import { measurement } from '../../support/tuning.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-tune-'))
test.after(() => rmSync(folder, { recursive: true }))

const adapter: AdapterSummary = { vendor: 'v', architecture: 'a', device: 'd/../e', driver: '1.0', software: false }
const silent = (line: string): never => assert.unreachable(line) as never

test('caches are where the platform wants them', () => {
  const home = join('/', 'home', 'me')
  assert.is(cacheFolder('linux', {}, home), join(home, '.cache', 'atrous'))
  assert.is(cacheFolder('linux', { XDG_CACHE_HOME: join('/', 'fast') }, home), join('/', 'fast', 'atrous'))
  assert.is(cacheFolder('linux', { XDG_CACHE_HOME: 'relative' }, home), join(home, '.cache', 'atrous'))
  assert.is(cacheFolder('darwin', {}, home), join(home, 'Library', 'Caches', 'atrous'))
  assert.is(cacheFolder('win32', { LOCALAPPDATA: join('/', 'local') }, home), join('/', 'local', 'atrous'))
})

test('measurements are kept for each adapter and driver', async () => {
  const at = join(folder, 'kept')
  const cache = new TuningCache(adapter, silent, at)
  assert.equal(cache.read(), [])
  const list = [measurement('one', 'k1'), { ...measurement('two', 'k0'), milliseconds: [1.5, null] }]
  assert.equal(await cache.add(list), list)
  assert.equal(new TuningCache(adapter, silent, at).read(), list)
  assert.equal(await cache.add([measurement('one', 'k0'), measurement('three', 'k0')]), [
    ...list,
    measurement('three', 'k0'),
  ])
  assert.equal(new TuningCache({ ...adapter, driver: '1.1' }, silent, at).read(), [])
  assert.ok(cache.path.startsWith(at) && !existsSync(`${cache.path}.lock`))
  cache.clear()
  assert.equal(cache.read(), [])
})

test('a damaged file is ignored with one line, and replaced', async () => {
  const lines: string[] = []
  const cache = new TuningCache(adapter, (line) => lines.push(line), join(folder, 'damaged'))
  await cache.add([measurement('one', 'k1')])
  const whole = readFileSync(cache.path, 'utf8')
  const wrong = [
    whole.slice(0, -20),
    whole.replace('"format":1', '"format":2'),
    whole.replace('"sources":[0]', '"sources":[7]'),
    whole.replace('"k1"', '3'),
    whole.replace('driver', 'x').replace('1.0', '1.2'),
    'null',
    '',
  ]
  for (const text of wrong) {
    assert.is.not(text, whole)
    writeFileSync(cache.path, text)
    lines.length = 0
    assert.equal(cache.read(), [])
    assert.is(lines.length, 1)
    assert.match(lines[0] ?? '', /\.json .*delete it/)
    assert.equal(await cache.add([measurement('two', 'k0')]), [measurement('two', 'k0')])
    assert.is(lines.length, 1)
    assert.equal(cache.read(), [measurement('two', 'k0')])
  }
})

test('a cache that cannot be written costs a line', async () => {
  const lines: string[] = []
  const blocked = join(folder, 'blocked')
  writeFileSync(blocked, '')
  const cache = new TuningCache(adapter, (line) => lines.push(line), blocked)
  assert.equal(await cache.add([measurement('one', 'k1')]), [measurement('one', 'k1')])
  assert.equal(await cache.add([measurement('two', 'k0')]), [measurement('two', 'k0')])
  assert.is(lines.length, 1)
  assert.match(lines[0] ?? '', /not kept/)
})

test('what a killed process held is free again', async () => {
  const cache = new TuningCache(adapter, silent, join(folder, 'held'))
  mkdirSync(dirname(cache.path), { recursive: true })
  writeFileSync(`${cache.path}.lock`, '')
  utimesSync(`${cache.path}.lock`, new Date(0), new Date(0))
  assert.equal(await cache.add([measurement('one', 'k1')]), [measurement('one', 'k1')])
  assert.equal(cache.read(), [measurement('one', 'k1')])
})

test('processes that measure at the same time agree in the end', async () => {
  const at = join(folder, 'shared')
  const script = join(folder, 'writer.mjs')
  const library = pathToFileURL(join('dist', 'train', 'tuning', 'tuning-cache.js')).href
  writeFileSync(
    script,
    `import { TuningCache } from ${JSON.stringify(library)}
const [, , at, name] = process.argv
const cache = new TuningCache(${JSON.stringify(adapter)}, (line) => { throw new Error(line) }, at)
const kernels = ['a', 'b', 'c'].map((source) => ({ name: source, sources: [source] }))
const told = {}
for (let i = 0; i < 25; i++) {
  const fresh = ['call ' + i, name + ' ' + i].map((call) => ({ call, kernels, milliseconds: [1, 1, 1], choice: name }))
  for (const { call, choice } of await cache.add(fresh)) told[call] = choice
}
console.log(JSON.stringify(told))
`,
  )
  const told = await Promise.all(
    ['a', 'b', 'c'].map(async (name) => {
      const child = spawn(process.execPath, [script, at, name], { stdio: ['ignore', 'pipe', 'inherit'] })
      let text = ''
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
      assert.is(await new Promise((resolve) => child.once('close', resolve)), 0)
      return JSON.parse(text) as Record<string, string>
    }),
  )
  const final = new TuningCache(adapter, silent, at).read()
  assert.is(final.length, 25 + 3 * 25)
  for (const each of told) {
    for (const [call, choice] of Object.entries(each)) {
      assert.is(choice, final.find((measured) => measured.call === call)?.choice, call)
    }
  }
})

test('a file elsewhere says what is wrong with it', () => {
  const path = join(folder, 'run.json')
  assert.is(readTuning(path), undefined)
  writeTuning(path, 'some adapter', [measurement('one', 'k1')])
  assert.equal(readTuning(path), { adapter: 'some adapter', measurements: [measurement('one', 'k1')] })
  writeFileSync(path, '{')
  assert.throws(() => readTuning(path), /run\.json is damaged: delete it/)
})

test.run()
