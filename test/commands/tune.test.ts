// node dist/tune.js, and what train.js makes of its measurements.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { findAdapters, open } from '#dist/engine/node.js'
import { cpuLanes } from '#dist/kernels/conv2d-tiles.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { skipUnless } from '../support/skip.js'
import { type CommandResult, run, tinyData } from '../support/tiny-run.js'

const { folder, config, trainArgs, remove } = await tinyData('tune')
test.after(remove)
const several =
  (await findAdapters()).length > 0 ? await open().then(({ traits }) => cpuLanes(traits) !== undefined) : false
const deviceTest = skipUnless(several, 'this adapter has one kernel for each operator')

const ownCache = process.env.MESA_SHADER_CACHE_DIR ?? process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
/** Another folder for measurements; the driver's translations of kernels stay where they are. */
const cacheIn = (name: string) => ({ XDG_CACHE_HOME: join(folder, name), MESA_SHADER_CACHE_DIR: ownCache })

const env = cacheIn('cache')
const kernels = join(folder, 'cache', 'atrous', 'kernels')
const cacheFile = () => join(kernels, readdirSync(kernels)[0] ?? '')
const tune = (...args: string[]) => run('tune.js', args, env)

function succeeds({ code, stdout, errors }: CommandResult): string {
  assert.is(code, 0, errors.join('\n'))
  return stdout
}

const weightsOf = (name: string) => readSafetensors(join(folder, name, 'latest.safetensors')).tensors

function sameWeights(a: string, b: string): boolean {
  const other = weightsOf(b)
  return [...weightsOf(a)].every(([name, { data }]) => {
    const values = other.get(name)?.data
    return values?.length === data.length && data.every((value, i) => Object.is(value, values[i]))
  })
}

deviceTest('tune measures what is unknown, once', () => {
  const first = succeeds(tune('--config', config, '--size', '48'))
  const [, measured = '0'] = /^(\d+) measured in .*, 0 known before; kept in /m.exec(first) ?? []
  assert.ok(Number(measured) > 30, first)
  assert.match(first, /\*subgroup \d.* {2}workgroup \d.* conv2d as a product of ~/)
  assert.match(first, /training step, prevmatch, 2 images of 33x33: \d+ operators have a choice; /)
  assert.match(first, /evaluation of an image of 48x48: /)
  const kept = readFileSync(cacheFile(), 'utf8')
  const again = succeeds(tune('--config', config, '--size', '48'))
  assert.match(again, new RegExp(`^0 measured in .*, ${measured} known before`, 'm'))
  assert.is(readFileSync(cacheFile(), 'utf8'), kept)
  assert.match(succeeds(tune('--list')), new RegExp(`^${measured} measured, in `, 'm'))
  assert.match(succeeds(run('tune.js', ['--list', '--gpu', 'llvmpipe'], env)), /conv2dWeightGrad/)
})

deviceTest('a run keeps the kernels it began with', () => {
  // Other kernels than the usual ones, so that they show in the last bits.
  const cached = JSON.parse(readFileSync(cacheFile(), 'utf8')) as {
    measurements: { kernels: { name: string }[]; choice: string | undefined }[]
  }
  for (const measurement of cached.measurements) measurement.choice = measurement.kernels.at(-1)?.name
  writeFileSync(cacheFile(), JSON.stringify(cached))
  const train = (name: string, variables: NodeJS.ProcessEnv, ...args: string[]) =>
    succeeds(run('train.js', ['--config', config, '--save-path', join(folder, name), ...args], variables))
  train('whole', env)
  train('usual', env, '--no-tune')
  assert.not.ok(sameWeights('whole', 'usual'), 'both kernels give the same bits: the test shows nothing')
  train('halved', env, '--max-iters', '3')
  const latest = join(folder, 'halved', 'latest.safetensors')
  train('halved', cacheIn('empty'), '--resume', latest)
  assert.ok(sameWeights('whole', 'halved'), 'the resumed run took other kernels')
  train('plain', cacheIn('empty'), '--max-iters', '3')
  train('plain', env, '--resume', join(folder, 'plain', 'latest.safetensors'))
  assert.ok(sameWeights('usual', 'plain'), 'a run that began without measurements took some up')
})

deviceTest('train measures where it is told to', () => {
  const cache = cacheIn('other')
  const args = ['--method', 'supervised', '--max-iters', '1']
  const first = succeeds(run('train.js', trainArgs('tuned', '--tune', ...args), cache))
  assert.match(
    first,
    /kernels: measuring which are fastest on this adapter, once: kept in .*\n.*tuning: measured (\d+) of \1 operators\n/s,
  )
  const second = succeeds(run('train.js', trainArgs('again', '--tune', ...args), cache))
  assert.not.match(second, /measur/)
  assert.ok(sameWeights('tuned', 'again'))
})

deviceTest('a damaged file of a run is named', () => {
  writeFileSync(join(folder, 'halved', 'kernels.json'), '{')
  const result = run('train.js', trainArgs('halved', '--resume', join(folder, 'halved', 'latest.safetensors')), env)
  assert.is(result.code, 1)
  assert.match(result.errors.join('\n'), /^error: .*kernels\.json is damaged: delete it$/)
})

test('wrong options are named', () => {
  const refused = (pattern: RegExp, ...args: string[]) => {
    const { code, errors } = tune(...args)
    assert.is(code, 1)
    assert.match(errors.join('\n'), pattern)
  }
  refused(/unknown key 'crops'/, '--set', 'crops=3')
  refused(/crop_size/, '--crop', '3')
  refused(/HEIGHTxWIDTH/, '--size', 'large')
  refused(/there is no configuration/, '--config', join(folder, 'none.yaml'))
})

test.run()
