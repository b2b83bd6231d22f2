import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { start } from '../../support/child.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, data, trainArgs, trainInto, remove } = await tinyData('reading')
test.after(remove)
const latest = (name: string) => join(folder, name, 'latest.safetensors')
const unlabeled = readFileSync(join(data, 'unlabeled.txt'), 'utf8').trim().split('\n')
const validation = readFileSync(join(data, 'val.txt'), 'utf8').trim().split('\n')
const victim = join(data, unlabeled[2] ?? '')
const next = join(data, unlabeled[3] ?? '')

function bytesOf(name: string): Map<string, Uint8Array> {
  const { tensors } = readSafetensors(latest(name))
  return new Map(
    [...tensors].map(
      ([
        key,
        {
          data: { buffer },
        },
      ]) => [key, new Uint8Array(buffer)],
    ),
  )
}

/** Starts a run, and changes something between its check of the images and its first step. */
async function meanwhile(name: string, change: () => void, args: string[] = [], faults: string[] = []) {
  const child = start('train.js', trainArgs(name, ...args), faults)
  await child.until(/compiling kernels/)
  change()
  return { code: await child.ended, output: child.output() }
}

/** Runs `body` with other contents of some files. */
async function withFiles(contents: ReadonlyMap<string, Uint8Array>, body: () => Promise<void>): Promise<void> {
  const before = [...contents.keys()].map((path) => [path, readFileSync(path)] as const)
  try {
    await body()
  } finally {
    for (const [path, bytes] of before) writeFileSync(path, bytes)
  }
}

test.before(() => {
  const { code, errors } = trainInto('whole')
  assert.is(code, 0, errors.join('\n'))
})

test('an image that becomes unreadable is named, and the next one of its list takes its place, whatever the threads', () =>
  withFiles(new Map([[victim, new Uint8Array()]]), async () => {
    const good = readFileSync(victim)
    for (const workers of [1, 4]) {
      writeFileSync(victim, good)
      const name = `unreadable-${workers}`
      const spoil = () => writeFileSync(victim, good.subarray(0, 300))
      const { code, output } = await meanwhile(name, spoil, ['--set', `workers=${workers}`])
      assert.is(code, 0, output)
      const told = output.split('\n').filter((line) => line.includes('cannot read the image'))
      assert.is(told.length, 1, output)
      assert.ok(told[0]?.includes(victim) && told[0].endsWith(`meanwhile ${next} takes its place`), told[0])
      const log = readFileSync(join(folder, name, 'log.jsonl'), 'utf8')
      assert.is(log.split('"event":"unreadable"').length, 2)
    }
    assert.equal(bytesOf('unreadable-4'), bytesOf('unreadable-1'))
    assert.not.equal(bytesOf('unreadable-1'), bytesOf('whole'))
    // The same as a list that names the next image twice.
    writeFileSync(victim, readFileSync(next))
    const { code, errors } = trainInto('doubled')
    assert.is(code, 0, errors.join('\n'))
    assert.equal(bytesOf('doubled'), bytesOf('unreadable-1'))
    // A run whose image is gone can also be resumed.
    rmSync(victim)
    const { code: again, errors: others } = trainInto('doubled', '--max-iters', '9', '--resume', latest('doubled'))
    assert.is(again, 0, others.join('\n'))
    writeFileSync(victim, good)
  }))

test('more unreadable images than max_unreadable end the run, with a count and a name', () => {
  const images = unlabeled.slice(0, 3).map((name) => join(data, name))
  return withFiles(new Map(images.map((path) => [path, new Uint8Array()])), async () => {
    const spoil = () => images.map((path) => writeFileSync(path, 'no image'))
    const { code, output } = await meanwhile('too-many', () => void spoil(), ['--set', 'max_unreadable=2'])
    assert.is(code, 1, output)
    assert.match(output, /error: 3 files cannot be read, the last one: cannot read the image .*\.png/)
    assert.not.ok(existsSync(join(folder, 'too-many', 'run.lock')))
  })
})

test('an unreadable validation image is named and left out, and counted', () => {
  const image = join(data, validation[1]?.split(' ')[0] ?? '')
  return withFiles(new Map([[image, new Uint8Array()]]), async () => {
    const { code, output } = await meanwhile('validation', () => rmSync(image))
    assert.is(code, 0, output)
    assert.ok(output.includes(`cannot read the image ${image}`), output)
    assert.match(output, /mIoU [\d.]+ \(best so far\); 1 of 3 images left out/)
    // The training itself is the same.
    assert.equal(bytesOf('validation').get('fuse.0.weight'), bytesOf('whole').get('fuse.0.weight'))
  })
})

test('a list that is changed during the run changes nothing; the run resumes with the old one, or says that it is another', () => {
  const list = join(data, 'unlabeled.txt')
  return withFiles(new Map([[list, new Uint8Array()]]), async () => {
    const change = () => writeFileSync(list, `${unlabeled.slice(1).join('\n')}\n`)
    const { code, output } = await meanwhile('list', change, ['--max-iters', '3'])
    assert.is(code, 0, output)
    cpSync(join(folder, 'list'), join(folder, 'other-list'), { recursive: true })
    const { code: resumed, stdout } = trainInto('other-list', '--resume', latest('other-list'))
    assert.is(resumed, 0)
    // One of two epochs is done: of 2 iterations now, of 3 before.
    assert.match(stdout, /from here on another list of unlabeled images\n.*epoch 2\/2 1\/2 /s)
    writeFileSync(list, `${unlabeled.join('\n')}\n`)
    assert.is(trainInto('list', '--resume', latest('list')).code, 0)
    assert.equal(bytesOf('list'), bytesOf('whole'))
  })
})

test('a loader thread that ends is replaced, and the bits stay the same', async () => {
  const fault = `reading.js?how=end-once&file=${unlabeled[2]}`
  const child = start('train.js', trainArgs('ended-once', '--set', 'workers=1'), [fault])
  assert.is(await child.ended, 0, child.output())
  const told = child
    .output()
    .split('\n')
    .filter((line) => line.includes('a loader thread ended'))
  assert.is(told.length, 1)
  assert.match(told[0] ?? '', new RegExp(`ended \\(exit code 7\\) while it read .*${victim}.*: read again`))
  assert.equal(bytesOf('ended-once'), bytesOf('whole'))
})

test('an image that ends every thread which reads it is found, named and left out', async () => {
  for (const workers of [1, 3]) {
    const fault = `reading.js?how=end&file=${unlabeled[2]}`
    const child = start('train.js', trainArgs(`ended-${workers}`, '--set', `workers=${workers}`), [fault])
    assert.is(await child.ended, 0, child.output())
    assert.ok(
      child.output().includes(`cannot read the image ${victim}: it ends the thread that reads it (exit code 7)`),
    )
    assert.ok(child.output().includes(`meanwhile ${next} takes its place`))
  }
  assert.equal(bytesOf('ended-3'), bytesOf('ended-1'))
  assert.equal(bytesOf('ended-1'), bytesOf('unreadable-1'))
})

test('a wait for an image is reported, with image and thread, at growing intervals; signals still end the run', async () => {
  const child = start('train.js', trainArgs('hanging'), ['fast-clock.js', `reading.js?how=hang&file=${unlabeled[2]}`])
  await child.until(/waiting since 4:00 min/)
  assert.match(child.output(), new RegExp(`waiting since 1:00 min for images to be read: .*${victim} \\(thread 1\\)`))
  assert.match(child.output(), /waiting since 2:00 min/)
  child.signal('SIGINT')
  await child.until(/SIGINT: finishing the step/)
  child.signal('SIGINT')
  assert.is(await child.ended, 130)
  assert.not.ok(readdirSync(join(folder, 'hanging')).includes('run.lock'))
})

test('a wait for the device is reported with the step', async () => {
  const child = start('train.js', trainArgs('stuck'), ['fast-clock.js', 'stuck-device.js'])
  await child.until(/waiting since 2:00 min for the device to finish iteration 3/)
  child.signal('SIGKILL')
  await child.ended
})

test.run()
