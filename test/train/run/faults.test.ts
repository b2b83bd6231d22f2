import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, config, trainArgs, trainInto, remove } = await tinyData('faults')
test.after(remove)

const latestOf = (name: string) => join(folder, name, 'latest.safetensors')

/** Runs a command with a fault of test/support/faults. One that hangs has no exit code. */
function runWith(fault: string, name: string, args: readonly string[]) {
  const command = ['--import', `./build/test/support/faults/${fault}.js`, `dist/${name}.js`, ...args]
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: 'utf8', timeout: 60_000 })
  return { code: status, stdout, errors: linesOf(stderr) }
}

const trainWith = (fault: string, into: string, ...args: string[]) => runWith(fault, 'train', trainArgs(into, ...args))

const linesOf = (text: string): string[] =>
  text.split('\n').filter((line) => line !== '' && !line.startsWith('Warning: '))

/** The one line that a command printed on stderr. */
function onlyLine(errors: readonly string[]): string {
  assert.is(errors.length, 1, errors.join('\n'))
  return errors[0] ?? ''
}

function assertSameTensors(name: string, expected: string): void {
  const actual = readSafetensors(latestOf(name)).tensors
  for (const [key, { data }] of readSafetensors(latestOf(expected)).tensors) {
    assert.equal(actual.get(key)?.data, data, key)
  }
}

function assertFinite(name: string): void {
  for (const [key, { data }] of readSafetensors(latestOf(name)).tensors) {
    assert.ok(
      Array.from(data, Number).every((value) => Number.isFinite(value)),
      key,
    )
  }
}

test('a lost device ends the run with its last checkpoint, and the command that it prints goes on with the same bits', () => {
  // Looking for NaN must not change a run.
  const whole = trainInto('whole', '--trace-nan')
  assert.is(whole.code, 0, whole.errors.join('\n'))
  const { code, errors } = trainWith('lose-device', 'lost')
  assert.is(code, 3, errors.join('\n'))
  const line = onlyLine(errors)
  assert.match(line, /^error: the GPU device was lost \(destroyed\): .*; the last good checkpoint is /)
  assert.match(line, /latest\.safetensors of iteration 3; to resume: node dist\/train\.js --config /)
  const command = line.replace(/^.*to resume: /, '')
  const resumed = spawnSync('sh', ['-c', command], { encoding: 'utf8' })
  assert.is(resumed.status, 0, resumed.stderr)
  assertSameTensors('lost', 'whole')
})

test('a device that is lost before the first checkpoint says how to begin again', () => {
  const { code, errors } = trainWith('lose-device', 'lost early', '--set', 'epochs=1', '--set', 'batch_size=1')
  assert.is(code, 3, errors.join('\n'))
  const line = onlyLine(errors)
  assert.match(line, /there is no checkpoint to go back to; to begin again: node dist\/train\.js .*'.*lost early'/)
  assert.match(line, / --overwrite$/)
})

test('a device that is lost during an evaluation ends it, and nothing is written', () => {
  const args = ['--config', config, '--ckpt-path', latestOf('whole'), '--out', join(folder, 'scores')]
  const { code, errors } = runWith('lose-device-evaluating', 'evaluate', args)
  assert.is(code, 3, errors.join('\n'))
  assert.match(onlyLine(errors), /^error: the GPU device was lost/)
  assert.not(existsSync(join(folder, 'scores')))
})

test('memory that is not there ends the run with what needs it, before anything is written', () => {
  const { code, errors } = trainWith('no-memory', 'no memory')
  assert.is(code, 4, errors.join('\n'))
  const largest = /^error: allocating [\d.]+ MiB, the largest tensors being .* for prevmatch step: out of GPU memory: /
  assert.match(onlyLine(errors), largest)
  assert.match(onlyLine(errors), /use a smaller batch_size or crop_size/)
  assert.not(existsSync(join(folder, 'no memory')))
})

test('an invalid dispatch ends the run with the name of its kernel', () => {
  const { code, errors } = trainWith('invalid-dispatch', 'invalid')
  assert.is(code, 2, errors.join('\n'))
  assert.match(
    errors.join('\n'),
    /Error: previous models: kernel backbone: maxPool2d: the GPU reported: Dispatch workgroup count/,
  )
})

test('a weight that becomes NaN ends the run; the checkpoint before it stays', () => {
  const { code, errors } = trainWith('poison-weight', 'poisoned')
  assert.is(code, 5, errors.join('\n'))
  const line = onlyLine(errors)
  assert.match(line, /^error: iteration [45]: .*; nothing of this step is saved; the last good checkpoint is /)
  assert.match(
    line,
    /latest\.safetensors of iteration 3; .*; to find the operator: node dist\/train\.js .*--trace-nan$/,
  )
  assertFinite('poisoned')
  const log = readFileSync(join(folder, 'poisoned', 'log.jsonl'), 'utf8')
  assert.not.match(log, /null/)
})

test('--trace-nan finds what was NaN first', () => {
  const { code, errors } = trainWith('poison-weight', 'traced', '--trace-nan')
  assert.is(code, 5, errors.join('\n'))
  assert.match(
    onlyLine(errors),
    /the first value that is not finite is variable fuse\.0\.weight \[3, 3, 12, 8\] in 864 of 864 elements/,
  )
})

test('--trace-nan finds the operator and layer of a run that diverges', () => {
  const args = ['--set', 'lr=1e30', '--trace-nan', '--max-iters', '3']
  const { code, errors } = trainInto('diverged', ...args)
  assert.is(code, 5, errors.join('\n'))
  assert.match(
    onlyLine(errors),
    /the first value that is not finite is pseudo-labels\.backbone\.conv1\.1: batchNorm \[2, 17, 17, 4\], in the forward pass, in /,
  )
  assert.match(onlyLine(errors), /elements; its inputs are finite: .*; there is no checkpoint/)
})

for (const method of ['supervised', 'prevmatch']) {
  test(`--trace-nan finds nothing in a healthy ${method} step`, () => {
    const { code, stdout, errors } = trainWith(
      'look-into-healthy',
      `healthy ${method}`,
      '--trace-nan',
      '--method',
      method,
    )
    assert.is(code, 0, errors.join('\n'))
    assert.match(stdout, /found: undefined/)
  })
}

test('--dry-run tells what a run takes of the device, and writes nothing', () => {
  const larger = ['--set', 'crop_size=129', '--max-iters', '3']
  const text = join(folder, 'program.txt')
  const { code, stdout, errors } = trainInto('dry', '--dry-run', '--print-program', text, ...larger)
  assert.is(code, 0, errors.join('\n'))
  const programs = readFileSync(text, 'utf8')
  assert.match(programs, /^program prevmatch step\n.*conv2d.*\n# memory\n.*\nprogram previous models\n.*\n# memory\n/s)
  const alone = trainInto('dry', '--print-program', text)
  assert.is(alone.code, 1)
  assert.is(onlyLine(alone.errors), 'error: --print-program needs --dry-run')
  assert.not(existsSync(join(folder, 'dry')))
  const planned = Number(/^planned: \d+ kernels; \d+ dispatches .* at most ([\d.]+) MiB/m.exec(stdout)?.[1])
  assert.match(
    stdout,
    /MiB {2}parameters, 80 tensors\n.*running statistics\n.*momentum buffers\n.*previous models, at most 2\n/,
  )
  assert.match(stdout, /largest tensors of the step:\n( {2}\S.* f32\[[\d, ]+\] of [\d.]+ MiB\n)+limits of the adapter:/)
  assert.match(stdout, /memory: [\d.]+ MiB of [\d.]+ MiB that this machine has free, .*: fits\n/)
  const counted = trainWith('count-memory', 'counted', ...larger)
  assert.is(counted.code, 0, counted.errors.join('\n'))
  const actual = Number(/peak of memory: (\d+)/.exec(counted.stdout)?.[1]) / 2 ** 20
  assert.ok(Math.abs(planned / actual - 1) < 0.03, `${planned} MiB planned, ${actual} MiB taken`)
})

test('--dry-run of what does not fit ends with 1 and says what does', () => {
  const bound = trainInto('dry', '--dry-run', '--set', 'crop_size=3601')
  assert.is(bound.code, 1)
  assert.match(onlyLine(bound.errors), /^error: prevmatch step: .* is too large: .*: use at most crop_size 33\d\d$/)
  const little = trainWith('little-memory', 'dry', '--dry-run')
  assert.is(little.code, 1, little.errors.join('\n'))
  assert.match(little.stdout, /that this machine has free, .*: does not fit\nremedy: .*batch_size 1 takes [\d.]+ MiB/)
  const list = trainInto('dry', '--dry-run', '--val-id-path', join(folder, 'no list'))
  assert.is(list.code, 1)
  assert.match(onlyLine(list.errors), /no list/)
  assert.not(existsSync(join(folder, 'dry')))
})

test.run()
