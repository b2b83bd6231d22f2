import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DamagedFileError } from '#dist/train/error.js'
import { readSafetensors, type Safetensors, writeSafetensors } from '#dist/train/io/safetensors.js'
import { RunLock } from '#dist/train/run/run-lock.js'
import { type Child, start } from '../../support/child.js'
import { assertSameRun, previousOf } from '../../support/same-run.js'
import { skipUnless } from '../../support/skip.js'
import { run, tinyData } from '../../support/tiny-run.js'

const { folder, data, config, trainArgs, trainInto, remove } = await tinyData('integrity')
test.after(remove)
const at = (...parts: string[]) => join(folder, ...parts)
const checkpoint = (name: string) => at(name, 'latest.safetensors')
const long = ['--set', 'epochs=4']

const begin = (name: string, ...faults: string[]): Child => start('train.js', trainArgs(name, ...long), faults)

function resume(name: string, ...more: string[]): string {
  const { code, errors, stdout } = trainInto(name, ...long, '--resume', checkpoint(name), ...more)
  assert.is(code, 0, errors.join('\n'))
  return stdout
}

/** All bits are those of the run that nothing happened to. */
const assertSame = (name: string): void => assertSameRun(at(name), at('whole'))

test.before(() => {
  const { code, errors } = trainInto('whole', ...long, '--set', 'workers=1')
  assert.is(code, 0, errors.join('\n'))
  assert.ok(previousOf(at('whole')).length > 0)
  assert.not.ok(existsSync(at('whole', 'run.lock')))
  // After three of four epochs, and so with a checkpoint before the last.
  const { code: second, errors: others } = trainInto('part', ...long, '--max-iters', '9')
  assert.is(second, 0, others.join('\n'))
})

/** A copy of the run of three epochs. */
function copyOfPart(name: string): void {
  cpSync(at('part'), at(name), { recursive: true })
}

test('a file with any byte changed, or cut anywhere, is never taken for a good one', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'atrous-damage-'))
  const path = join(scratch, 'x.safetensors')
  const data = Float32Array.of(1, 2, 3)
  writeSafetensors(path, [['weight', { dtype: 'F32', shape: [3], data }]], { epoch: '3' })
  const good = readFileSync(path)
  const isTaken = (bytes: Uint8Array): boolean => {
    writeFileSync(path, bytes)
    let read: Safetensors
    try {
      read = readSafetensors(path)
    } catch (error) {
      assert.instance(error, DamagedFileError)
      return false
    }
    return read.verified
  }
  assert.ok(isTaken(good))
  for (let i = 0; i < good.length; i++) {
    for (const bit of [1, 4, 32, 128]) {
      const bad = Uint8Array.from(good)
      bad[i] = (good[i] ?? 0) ^ bit
      assert.not.ok(isTaken(bad), `byte ${i}, bit ${bit}`)
    }
    assert.not.ok(isTaken(good.subarray(0, i)), `the first ${i} bytes`)
  }
  assert.not.ok(isTaken(Buffer.concat([good, Buffer.alloc(1)])))
  rmSync(scratch, { recursive: true })
})

const damages: [string, (bytes: Buffer) => Buffer | undefined][] = [
  ['has a flipped bit', (bytes) => bytes.fill((bytes.at(-1000) ?? 0) ^ 16, bytes.length - 1000, bytes.length - 999)],
  ['is missing', () => undefined],
]
for (const [what, damage] of damages) {
  test(`where the newest checkpoint ${what}, the one before it is named and used`, () => {
    const name = what.replaceAll(' ', '-')
    copyOfPart(name)
    const bytes = damage(readFileSync(checkpoint(name)))
    if (bytes) writeFileSync(checkpoint(name), bytes)
    else rmSync(checkpoint(name))
    const output = resume(name)
    assert.match(output, /latest\.safetensors.*: resuming from the checkpoint before it, .*latest\.bak\.safetensors\n/)
    assert.match(output, /after iteration 6;/)
    assertSame(name)
  })
}

test('a backup under the name that earlier versions gave it is used', () => {
  copyOfPart('earlier')
  rmSync(checkpoint('earlier'))
  renameSync(at('earlier', 'latest.bak.safetensors'), at('earlier', 'latest.before.safetensors'))
  assert.match(resume('earlier'), /resuming from the checkpoint before it, .*latest\.before\.safetensors\n/)
  assertSame('earlier')
})

test('where a previous model of the newest checkpoint is damaged, the one before it is used, if it can be', () => {
  copyOfPart('previous')
  const [newest = ''] = previousOf(at('previous')).slice(-1)
  writeFileSync(at('previous', newest), readFileSync(at('previous', newest)).subarray(0, -1))
  const { code, stdout, errors } = trainInto('previous', ...long, '--resume', checkpoint('previous'))
  assert.match(stdout + errors.join('\n'), /iteration-\d+\.safetensors is not a usable safetensors file/)
  // Both checkpoints may need it: then no other is invented.
  if (code === 0) assertSame('previous')
  else assert.is(errors.length, 1)
})

test('a damaged checkpoint is refused by evaluate and predict', () => {
  const path = at('damaged.safetensors')
  const bytes = readFileSync(at('part', 'best.safetensors'))
  bytes[bytes.length - 40] = (bytes.at(-40) ?? 0) ^ 1
  writeFileSync(path, bytes)
  const { code, errors } = run('evaluate.js', ['--config', config, '--ckpt-path', path, '--out', at('scores')])
  assert.is(code, 1)
  assert.match(errors.join('\n'), /^error: .*damaged\.safetensors .*checksum does not hold: it is damaged$/)
})

// The changes of the checkpoints' files in the second epoch: in the midst of a write, and after the last renaming.
// `npm run soak kills` goes through all of them.
for (const change of [22, 29]) {
  test(`a run whose power fails at change ${change} of its checkpoint files goes on with the same bits`, async () => {
    const name = `killed-${change}`
    assert.is(await begin(name, `kill.js?at=${change}`).ended, null)
    assert.ok(existsSync(at(name, 'run.lock')))
    const output = resume(name)
    assert.match(output, /run\.lock: taken over from process \d+ on .*, which has ended/)
    assertSame(name)
    assert.equal(
      readdirSync(at(name)).filter((file) => file.endsWith('.tmp')),
      [],
    )
  })
}

test('SIGTERM ends a run as SIGINT does, with a checkpoint and its own exit code', async () => {
  const child = begin('terminated')
  await child.until(/epoch 2\/4 1\/3/)
  child.signal('SIGTERM')
  assert.is(await child.ended, 143)
  assert.match(child.output(), /to resume: node dist\/train\.js .*--resume/)
  assert.not.ok(existsSync(at('terminated', 'run.lock')))
  resume('terminated')
  assertSame('terminated')
})

test('two runs in one folder: the second is refused and names the first; evaluate needs no lock', async () => {
  const first = start('train.js', trainArgs('shared', '--set', 'epochs=400'))
  await first.until(/epoch 2\/400 1\/3/)
  for (const more of [[], ['--overwrite'], ['--resume', checkpoint('shared')]]) {
    const { code, errors } = trainInto('shared', ...more)
    assert.is(code, 1)
    assert.is(errors.length, 1)
    const { pid } = first
    assert.match(errors[0] ?? '', new RegExp(`in use by another run \\(process ${pid} on .*, running since 20.*Z\\)`))
  }
  const best = at('shared', 'best.safetensors')
  assert.is(run('evaluate.js', ['--config', config, '--ckpt-path', best, '--out', at('scores')]).code, 0)
  first.signal('SIGINT')
  assert.is(await first.ended, 130)
  assert.not.ok(existsSync(at('shared', 'run.lock')))
})

const here = { host: hostname(), pid: process.pid, started: '2020-02-02T02:02:02.000Z' }
const locks: [string, string, RegExp | undefined][] = [
  ['of another process that had our number', JSON.stringify({ ...here, process: 'another boot 1' }), undefined],
  ['that is damaged', '{"host":', undefined],
  [
    'of another machine',
    JSON.stringify({ ...here, host: 'elsewhere' }),
    /process \d+ on elsewhere.*remove .*run\.lock/,
  ],
  ['of this process', JSON.stringify(here), /in use by another run/],
]
for (const [what, text, refused] of locks) {
  test(`a lock ${what} is ${refused ? 'respected' : 'taken over'}`, () => {
    const name = `lock ${what}`
    mkdirSync(at(name))
    const namespace = existsSync('/proc/self/ns/pid') ? { namespace: namespaceOf() } : {}
    writeFileSync(at(name, 'run.lock'), text.replace(/^\{(?=.*\}$)/, `{${JSON.stringify(namespace).slice(1, -1)},`))
    if (refused) {
      const { code, errors } = trainInto(name)
      assert.is(code, 1)
      assert.match(errors.join('\n'), refused)
      assert.ok(existsSync(at(name, 'run.lock')))
    } else {
      const told: string[] = []
      RunLock.acquire(at(name), (line) => told.push(line)).release()
      assert.match(told.join('\n'), /^\S.*run\.lock: taken over from [^\n]*$/)
      assert.not.ok(existsSync(at(name, 'run.lock')))
    }
  })
}

const namespaceOf = (): string => spawnSync('readlink', ['/proc/self/ns/pid'], { encoding: 'utf8' }).stdout.trim()

test('a full disk: the training continues, the last good checkpoint stays, and the writing is tried again', async () => {
  const child = begin('full-once', 'disk-full.js?from=2&to=2')
  assert.is(await child.ended, 0, child.output())
  const lines = child.output().split('\n')
  const told = lines.filter((line) => line.includes('cannot write'))
  assert.is(told.length, 2, told.join('\n'))
  assert.match(
    told[0] ?? '',
    /ENOSPC: no space left on device.*: the training continues .* checkpoint is .* of iteration 6$/,
  )
  assert.ok(lines.includes(`everything is saved in ${at('full-once')} again`))
  assertSame('full-once')
})

test('a disk that stays full: the run ends with an exit code of its own, and can be resumed', async () => {
  const child = begin('full', 'disk-full.js?from=3')
  assert.is(await child.ended, 6)
  const [last = ''] = child.output().trim().split('\n').slice(-1)
  assert.match(
    last,
    /^error: done after iteration 12, but cannot write .*latest\.safetensors.* of iteration 9; to resume: /,
  )
  assert.is(JSON.parse(readSafetensors(checkpoint('full')).metadata.iteration ?? ''), 9)
  resume('full')
  assertSame('full')
})

test('a folder that is removed during the run comes back with the next epoch', async () => {
  const child = begin('removed')
  await child.until(/epoch 3\/4 1\/3/)
  // Out of the way first: the run may write a file between the listing of the folder and its removal.
  renameSync(at('removed'), at('out of the way'))
  rmSync(at('out of the way'), { recursive: true })
  assert.is(await child.ended, 0, child.output())
  assert.match(
    child.output(),
    /cannot write (log\.jsonl|events).* ENOENT: no such file or directory: the training continues/,
  )
  assert.match(child.output(), /everything is saved in .*removed again/)
  assertSame('removed')
  for (const file of ['config.yaml', 'kernels.json', 'log.jsonl', 'report.html'])
    assert.ok(existsSync(at('removed', file)))
})

const splitInto = (out: string) => ['--labeled', '1', '--out', out]
const mount = (...args: string[]): boolean => spawnSync('mount', args).status === 0
mkdirSync(at('probe'))
const canMount = mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', at('probe'))
if (canMount) spawnSync('umount', [at('probe')])

skipUnless(canMount, 'mounting a small file system needs root')(
  'a file system that is full, then read-only, then well again',
  async () => {
    mkdirSync(at('small'))
    assert.ok(mount('-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', at('small')))
    try {
      const child = begin('small/run')
      await child.until(/epoch 2\/4 1\/3/)
      const filler = at('small', 'filler')
      spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1k'])
      await child.until(/cannot write .*latest\.safetensors.*ENOSPC/)
      rmSync(filler)
      assert.ok(mount('-o', 'remount,ro', at('small')))
      await child.until(/cannot write .*EROFS: read-only file system/)
      assert.ok(mount('-o', 'remount,rw', at('small')))
      const code = await child.ended
      assert.is(code, 0, child.output())
      assertSame('small/run')
      assert.ok(mount('-o', 'remount,ro', at('small')))
      const refused = [
        trainInto('small/other'),
        trainInto('small/run', '--overwrite'),
        run('split.js', ['--data-root', data, '--images', 'images', '--labels', 'labels', ...splitInto(at('small'))]),
      ]
      for (const { code, errors } of refused) {
        assert.is(code, 1, errors.join('\n'))
        assert.match(errors.join('\n'), /^error: cannot write \S*small\S*: EROFS: read-only file system[^\n]*$/)
      }
    } finally {
      spawnSync('umount', [at('small')])
    }
  },
)

test('the same bits with any number of loader threads', () => {
  for (const workers of [2, 4]) {
    const { code, errors } = trainInto(`workers-${workers}`, ...long, '--set', `workers=${workers}`)
    assert.is(code, 0, errors.join('\n'))
    assertSame(`workers-${workers}`)
  }
})

test.run()
