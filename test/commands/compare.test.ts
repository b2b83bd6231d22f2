// node dist/compare.js: several methods on the same data.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sameSteps } from '#dist/comparison/comparison.js'
import { findAdapters } from '#dist/engine/node.js'
import { skipUnless } from '../support/skip.js'
import { run, tinyData } from '../support/tiny-run.js'

const available = (await findAdapters()).length > 0
const deviceTest = skipUnless(available, 'there is no WebGPU adapter')
const { folder, config, remove } = await tinyData('compare')
test.after(remove)
const out = join(folder, 'comparison')
const compare = (...args: string[]) => run('compare.js', ['--config', config, '--out', out, ...args])
const methods = ['--methods', 'supervised,prevmatch']

interface Written {
  readonly summaries: readonly { readonly method: string; readonly seeds: readonly number[] }[]
}
const written = (): Written => JSON.parse(readFileSync(join(out, 'comparison.json'), 'utf8')) as Written

deviceTest('runs are trained once, and further ones are added', () => {
  const first = compare(...methods)
  assert.is(first.code, 0, first.errors.join('\n'))
  assert.match(first.stdout, /== supervised, seed 0: run 1 of 2 ==/)
  assert.match(first.stdout, /^supervised +\d+\.\d +\d+\.\d +0:\d\d +\d+ MiB/m)
  const page = readFileSync(join(out, 'comparison.html'), 'utf8')
  assert.match(page, /href="prevmatch\/seed-0\/report\.html"/)
  assert.match(readFileSync(join(out, 'comparison.svg'), 'utf8'), />prevmatch<\/text>/)
  const log = readFileSync(join(out, 'prevmatch/seed-0/log.jsonl'), 'utf8')

  const more = compare(...methods, '--seeds', '0,1')
  assert.is(more.code, 0, more.errors.join('\n'))
  assert.match(more.stdout, /done before: .*prevmatch.seed-0/)
  assert.is(readFileSync(join(out, 'prevmatch/seed-0/log.jsonl'), 'utf8'), log)
  assert.equal(
    written().summaries.map(({ method, seeds }) => [method, seeds]),
    [
      ['supervised', [0, 1]],
      ['prevmatch', [0, 1]],
    ],
  )
})

deviceTest('a run that was stopped goes on', () => {
  const at = join(out, 'supervised', 'seed-1')
  rmSync(at, { recursive: true })
  const args = ['--config', config, '--method', 'supervised', '--seed', '1', '--save-path', at]
  assert.is(run('train.js', [...args, '--max-iters', '3']).code, 0)
  const { code, stdout, errors } = compare(...methods, '--seeds', '0,1')
  assert.is(code, 0, errors.join('\n'))
  assert.match(stdout, /resuming .*supervised.seed-1 after iteration 3/)
})

deviceTest('what is left of a run without its checkpoint is not replaced', () => {
  const at = join(out, 'supervised', 'seed-2')
  const args = ['--config', config, '--method', 'supervised', '--seed', '2', '--save-path', at]
  assert.is(run('train.js', [...args, '--max-iters', '3']).code, 0)
  rmSync(join(at, 'latest.safetensors'))
  const best = readFileSync(join(at, 'best.safetensors'))
  const { code, errors } = compare('--methods', 'supervised', '--seeds', '2')
  assert.is(code, 1)
  assert.match(errors.join('\n'), /latest\.safetensors/)
  assert.equal(readFileSync(join(at, 'best.safetensors')), best)
})

deviceTest('other settings are refused in the folder of a comparison', () => {
  const { code, errors } = compare(...methods, '--set', 'lr=0.5')
  assert.is(code, 1)
  assert.match(errors.join('\n'), /^error: .* holds a run with other settings \(now lr 0\.5 instead of 0\.01\)/)
})

test('a method whose epochs are passes over the labeled images has as many steps as the others', () => {
  assert.equal(sameSteps('dual-teacher'), ['epoch_of=unlabeled'])
  assert.equal(sameSteps('prevmatch'), [])
})

test('what is wrong is said before anything is trained', () => {
  const unknown = compare('--methods', 'supervised,nonesuch')
  assert.is(unknown.code, 1)
  assert.match(unknown.errors.join('\n'), /there is no method 'nonesuch': choose among supervised/)
  const seeds = compare('--seeds', '1,x')
  assert.match(seeds.errors.join('\n'), /expects whole numbers, such as 0,1,2/)
  const empty = join(folder, 'empty.yaml')
  writeFileSync(empty, 'nclass: 2\n')
  const other = run('compare.js', ['--config', empty, '--out', join(folder, 'none')])
  assert.is(other.code, 1)
  assert.not(existsSync(join(folder, 'none')))
})

test.run()
