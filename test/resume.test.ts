import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/safetensors.js'
import { tinyData } from './tiny-run.js'

const { folder, trainArgs, trainInto, remove } = await tinyData('resume')
test.after(remove)
const long = ['--set', 'epochs=4']

/** Starts a training and sends it a signal when `when` sees fit; resolves with exit code and output. */
function interrupted(name: string, kill: NodeJS.Signals, when: (output: string) => boolean) {
  const child = spawn(process.execPath, ['dist/train.js', ...trainArgs(name, ...long)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let output = ''
  let sent = false
  const look = () => {
    if (sent || !when(output)) return
    sent = true
    child.kill(kill)
  }
  const timer = setInterval(look, 1)
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    look()
  })
  return new Promise<{ code: number | null; output: string; sent: boolean }>((resolve) => {
    child.on('close', (code) => {
      clearInterval(timer)
      resolve({ code, output, sent })
    })
  })
}

/** The log without what depends on the clock. */
function logOf(name: string): unknown[] {
  const lines = readFileSync(join(folder, name, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  return lines.map((line) => {
    const { seconds: _, data: __, ...rest } = JSON.parse(line) as Record<string, unknown>
    return rest
  })
}

function assertSame(name: string): void {
  assert.equal(logOf(name), logOf('whole'))
  const expected = readSafetensors(join(folder, 'whole', 'latest.safetensors')).tensors
  const actual = readSafetensors(join(folder, name, 'latest.safetensors')).tensors
  assert.equal([...actual.keys()], [...expected.keys()])
  for (const [key, { data }] of expected) assert.equal(actual.get(key)?.data, data, key)
}

function resume(name: string): void {
  const { code, errors } = trainInto(name, ...long, '--resume', join(folder, name, 'latest.safetensors'))
  assert.is(code, 0, errors.join('\n'))
}

test.before(() => {
  const { code, errors } = trainInto('whole', ...long)
  assert.is(code, 0, errors.join('\n'))
  const previous = readdirSync(join(folder, 'whole', 'previous'))
  assert.ok(previous.length > 0, 'the run kept no previous model: resuming them is not tested')
})

test('a run killed in the middle of an epoch goes on with the same bits', async () => {
  const { sent } = await interrupted('killed', 'SIGKILL', (output) => output.includes('epoch 3/4 2/3'))
  assert.ok(sent)
  assert.ok(logOf('killed').length > logOf('whole').length / 2)
  resume('killed')
  assertSame('killed')
})

test('a run killed while it writes a checkpoint goes on with the same bits', async () => {
  const at = join(folder, 'torn')
  const writing = () =>
    existsSync(join(at, 'latest.safetensors')) && readdirSync(at).some((file) => file.startsWith('.latest'))
  const { sent } = await interrupted('torn', 'SIGKILL', writing)
  assert.ok(sent, 'the run ended before it was caught writing')
  resume('torn')
  assertSame('torn')
})

test('an interrupted run finishes its step, says how to go on, and goes on with the same bits', async () => {
  const { code, output } = await interrupted('stopped', 'SIGINT', (text) => text.includes('epoch 2/4 2/3'))
  assert.is(code, 130)
  assert.match(output, /to go on: node dist\/train\.js --config .*--resume .*latest\.safetensors/)
  resume('stopped')
  assertSame('stopped')
})

test('a run resumes with its own settings only', () => {
  const { code, errors } = trainInto(
    'whole',
    '--resume',
    join(folder, 'whole', 'latest.safetensors'),
    '--set',
    'epochs=5',
  )
  assert.is(code, 1)
  assert.match(errors.join('\n'), /another epochs/)
})

test.run()
