// Profiles: time stamps of the device, their summary, the tables, the trace, and `train.js --profile`.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Device } from '#dist/engine/device.js'
import { assign, read, scoped } from '#dist/engine/graph.js'
import { findAdapters, open } from '#dist/engine/node.js'
import {
  chromeTrace,
  type KernelTime,
  occupancy,
  type Profile,
  profileTable,
  type RunTimes,
  summarizeKernels,
} from '#dist/engine/profile.js'
import { compile } from '#dist/engine/program.js'
import { recorderOf } from '#dist/engine/replay.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { NoTimestampsError, Profiler } from '#dist/engine/timestamps.js'
import { add, mul, relu, scale, sum } from '#dist/kernels/pointwise.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { skipUnless } from '../support/skip.js'
import { tinyData } from '../support/tiny-run.js'

/** A kernel from one millisecond to another. */
const kernel = (op: string, layer: string, start: number, end: number, shapes = '4 → 4'): KernelTime => ({
  op,
  layer,
  kernel: 'rows',
  shapes,
  bytes: 1e6,
  multiplyAdds: 0,
  start: start * 1e6,
  end: end * 1e6,
})

const kernels = [
  kernel('conv', 'model.block.0', 0, 5),
  kernel('conv', 'model.block.1', 5, 8),
  kernel('relu', 'model.block.1', 8, 9),
  kernel('conv', 'model.head.0', 9, 10, '8 → 8'),
  kernel('sgd', '', 10, 12),
  kernel('conv', 'model.block.0', 12, 16),
  kernel('conv', 'model.block.1', 16, 20),
]

/** A run that JavaScript calls at one millisecond, encodes in 1 and submits in 2, and the device does at another. */
const runAt = (program: string, began: number, start: number, end: number, list: KernelTime[] = []): RunTimes => ({
  program,
  began,
  encoded: began + 1,
  submitted: began + 3,
  start: start * 1e6,
  end: end * 1e6,
  kernels: list,
})

const profile: Profile = {
  ordinary: [
    { began: 100, ready: 102, done: 120, runs: [runAt('a', 102, 5, 10), runAt('b', 106, 10, 15)] },
    { began: 120, ready: 120, done: 140, runs: [runAt('a', 120, 23, 35)] },
    { began: 140, ready: 140, done: 149, runs: [runAt('a', 140, 43, 48)] },
  ],
  detailed: [{ began: 150, ready: 150, done: 175, runs: [runAt('a', 150, 60, 80, kernels)] }],
  stampCost: 0,
}

test('kernels are summed by operator, by layer with all that contains it, and by likeness', () => {
  const summary = summarizeKernels(kernels, 2, 0)
  assert.is(summary.milliseconds, 10)
  assert.equal(
    summary.operators.map(({ name, calls, milliseconds, share }) => [name, calls, milliseconds, share]),
    [
      ['conv', 2.5, 8.5, 0.85],
      ['sgd', 0.5, 1, 0.1],
      ['relu', 0.5, 0.5, 0.05],
    ],
  )
  assert.equal(
    summary.layers.map(({ name, milliseconds }) => [name, milliseconds]),
    [
      ['model', 9],
      ['model.block', 8.5],
      ['model.block.0', 4.5],
      ['model.block.1', 4],
      ['(no layer)', 1],
      ['model.head', 0.5],
      ['model.head.0', 0.5],
    ],
  )
  const [first, ...rest] = summary.kernels
  assert.equal(first?.layers, ['model.block.0', 'model.block.1'])
  // Four times 1 MB in 16 ms.
  assert.equal([first?.calls, first?.milliseconds, first?.gbps], [2, 8, 0.25])
  assert.is(rest.length, 3)
})

test('what a time stamp adds to a kernel is taken off, and no more', () => {
  const { milliseconds, operators } = summarizeKernels(kernels, 1, 1.5e6)
  assert.equal(
    operators.map((part) => part.milliseconds),
    [3.5 + 1.5 + 2.5 + 2.5, 0.5, 0],
  )
  assert.is(milliseconds, 10.5)
})

test('the device waits for JavaScript outside of its programs', () => {
  // Medians of 20, 20, 9 ms; of 10, 12, 5; of 10, 8, 4; of 2, 0, 0; of 2, 1, 1; and of 4, 2, 2.
  const expected = { wall: 20, busy: 10, waiting: 8, data: 0, encode: 1, submit: 2 }
  assert.equal(occupancy(profile.ordinary), expected)
})

test('the tables show where the time goes', () => {
  const lines = profileTable(profile, 2)
  const text = lines.join('\n')
  assert.match(text, 'an ordinary step (median of 3): 20.0 ms')
  assert.match(text, 'runs programs 10.0 ms (50.0 %), waits for JavaScript 8.00 ms (40.0 %)')
  assert.match(text, '20.0 ms in 7 kernels and copies, less 0.00 us each')
  assert.match(text, /^ +17\.0 +85\.0 % +5 {2}conv$/m)
  // Two levels that hold the same are one row.
  assert.match(text, /^ +1\.00 +5\.0 % +1 {4}head\.0$/m)
  assert.match(text, /^ +9\.00 +45\.0 % +2 {6}0$/m)
  assert.match(lines.at(-2) ?? '', /16\.0 +80\.0 % +4 +0\.25 {2}conv +rows +4 → 4; model\.block\.0 and 1 more$/)
})

interface TraceEvent {
  readonly name: string
  readonly ph: string
  readonly pid: number
  readonly tid: number
  readonly ts: number
  readonly dur: number
  readonly args?: Record<string, unknown>
}

/** The slices of a trace by process and thread, each thread checked to have proper nesting. */
function slicesOf(text: string): Map<string, TraceEvent[]> {
  const { traceEvents } = JSON.parse(text) as { traceEvents: TraceEvent[] }
  const threads = new Map<string, TraceEvent[]>()
  const names = new Map<string, string>()
  for (const event of traceEvents) {
    const key = `${event.pid}/${event.tid}`
    if (event.name === 'thread_name') names.set(key, String(event.args?.name))
    if (event.ph !== 'X') continue
    assert.ok(event.ts >= 0 && event.dur >= 0, JSON.stringify(event))
    const thread = `${event.pid} ${names.get(key)}`
    threads.set(thread, [...(threads.get(thread) ?? []), event])
  }
  for (const events of threads.values()) {
    // In nanoseconds, which are whole.
    const end = (event: TraceEvent) => Math.round(1000 * event.ts) + Math.round(1000 * event.dur)
    const open: TraceEvent[] = []
    for (const event of events.sort((a, b) => a.ts - b.ts || b.dur - a.dur)) {
      for (let top = open.at(-1); top && end(top) <= Math.round(1000 * event.ts); top = open.at(-1)) open.pop()
      const outer = open.at(-1)
      assert.ok(!outer || end(event) <= end(outer), `${JSON.stringify(event)} laps over ${JSON.stringify(outer)}`)
      open.push(event)
    }
  }
  return threads
}

test('the trace has a thread for JavaScript, for programs and for kernels, on one clock', () => {
  const threads = slicesOf(chromeTrace(new Map(['first', 'second'].map((name) => [name, profile]))))
  const kinds = ['JavaScript', 'device: programs', 'device: kernels']
  assert.equal([...threads.keys()].sort(), [1, 2].flatMap((pid) => kinds.map((kind) => `${pid} ${kind}`)).sort())
  const programs = threads.get('1 device: programs') ?? []
  // The offset between the clocks is largest for the first run, submitted at 105 ms and begun at 5 ms: 100 ms.
  assert.equal(
    programs.map(({ name, ts, dur }) => [name, ts, dur]),
    [
      ['a', 5000, 5000],
      ['b', 10000, 5000],
      ['a', 23000, 12000],
      ['a', 43000, 5000],
      ['a', 60000, 20000],
    ],
  )
  const [first] = threads.get('1 device: kernels') ?? []
  assert.equal(first?.args, { layer: 'model.block.0', kernel: 'rows', shapes: '4 → 4', bytes: 1e6 })
  const javaScript = (threads.get('1 JavaScript') ?? []).map(({ name, ts, dur }) => [name, ts, dur])
  assert.equal(javaScript.slice(0, 4), [
    ['wait for data', 0, 2000],
    ['step', 2000, 18000],
    ['encode a', 2000, 1000],
    ['submit a', 3000, 2000],
  ])
})

const adapters = await findAdapters()
const device = adapters.length > 0 ? await open() : undefined
const clocked = skipUnless(device?.gpu.features.has('timestamp-query') === true, 'no adapter with time stamps')
const opened = (): Device => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  return device
}

clocked('a program gives the same results however it is timed, and its kernels follow on one another', async () => {
  const size = 3000
  const store = new Store(opened(), 'state')
  const weight = store.declare('weight', spec([size]))
  const x = Float32Array.from({ length: size }, (_, i) => (i % 17) - 8)
  // The copy of an old value lies between the dispatches, and that of a new one behind them.
  const program = await compile(
    opened(),
    { x: spec([size]) },
    (t) => {
      const before = read(weight)
      const y = scoped('layer', () => relu(add(mul(t.x, t.x), before)))
      assign(weight, scale(y, 0.5))
      return { before, total: sum(y) }
    },
    { optimize: false },
  )
  const profiler = new Profiler(opened())
  const run = async () => {
    store.write('weight', new Float32Array(size).fill(2))
    program.run({ x })
    return [await program.readAll(['before', 'total']), await store.read('weight')]
  }
  const plain = await run()
  const began = performance.now()
  const whole = await profiler.record('runs', run)
  const timed = await profiler.record('kernels', run)
  const wall = (performance.now() - began) * 1e6
  assert.equal(whole.result, plain)
  assert.equal(timed.result, plain)
  assert.is(whole.runs.length, 1)
  assert.equal(whole.runs[0]?.kernels, [])
  const [only] = timed.runs
  if (!only) throw new Error('nothing was recorded')
  const names = only.kernels.map(({ op }) => op)
  assert.equal(
    [...new Set(names)].filter((name) => name !== 'copy'),
    ['mul', 'add', 'relu', 'scale', 'sum'],
  )
  assert.ok(names.includes('copy'), names.join())
  const adding = only.kernels.find(({ op }) => op === 'add')
  assert.equal([adding?.layer, adding?.shapes, adding?.bytes], ['layer', '3000, 3000 → 3000', 36000])
  let at = only.start
  for (const { start, end } of only.kernels) {
    assert.is(start, at)
    assert.ok(end >= start)
    at = end
  }
  assert.is(at, only.end)
  assert.ok(only.end > only.start && only.end < wall, `${only.end} of ${wall} ns`)
  assert.is(recorderOf(opened().gpu), undefined)
  profiler.destroy()
  program.destroy()
  store.destroy()
})

clocked('more time stamps than a query set holds are kept in order, and none is rounded', async () => {
  const program = await compile(
    opened(),
    { x: spec([8]) },
    ({ x }) => ({ y: Array.from({ length: 1500 }).reduce<typeof x>((y) => scale(y, 1), x) }),
    { optimize: false },
  )
  const profiler = new Profiler(opened())
  const { runs } = await profiler.record('kernels', async () => {
    for (let k = 0; k < 3; k++) program.run({ x: new Float32Array(8) })
  })
  assert.equal(
    runs.map((run) => run.kernels.length),
    [1500, 1500, 1500],
  )
  const stamps = runs.flatMap(({ start, kernels }) => [start, ...kernels.map(({ end }) => end)])
  assert.ok(stamps.every((stamp, i) => i === 0 || stamp >= (stamps[i - 1] ?? 0)))
  // Dawn rounds to multiples of 2^16 ns.
  assert.ok(stamps.filter((stamp) => stamp % 2 ** 14 !== 0).length > stamps.length / 2, 'the stamps are rounded')
  profiler.destroy()
  program.destroy()
})

skipUnless(adapters.length > 0, 'there is no WebGPU adapter')('an adapter without time stamps says so', async () => {
  const [found] = await findAdapters()
  if (!found) throw new Error('unreachable: the test is skipped without an adapter')
  const bare = new Device(await found.adapter.requestDevice(), found.summary)
  try {
    new Profiler(bare)
    assert.unreachable()
  } catch (error) {
    assert.instance(error, NoTimestampsError)
    assert.match((error as Error).message, /has no time stamps \(WebGPU's feature timestamp-query\)/)
  }
  bare.destroy()
})

const tiny = await tinyData('profile')
const { folder, trainInto } = tiny
test.after(() => {
  device?.destroy()
  tiny.remove()
})

clocked('train --profile prints the tables, writes a trace, and trains as without it', () => {
  const file = join(folder, 'trace.json')
  const more = ['--set', 'epochs=4', '--max-iters', '9']
  const timed = trainInto('timed', ...more, '--profile', file, '--profile-steps', '2')
  assert.is(timed.code, 0, timed.errors.join('\n'))
  assert.match(timed.stdout, /an ordinary step \(median of 2\): .* ms/)
  assert.match(timed.stdout, /\d % +\d+ {2}conv2d$/m)
  assert.match(timed.stdout, /\d % +\d+ {2}backbone$/m)
  assert.match(timed.stdout, `profile: wrote ${file}`)
  const threads = slicesOf(readFileSync(file, 'utf8'))
  const programs = (threads.get('1 device: programs') ?? []).map(({ name }) => name)
  assert.is(programs.filter((name) => name === 'prevmatch step').length, 4)
  assert.ok(programs.includes('previous models'), programs.join())
  const layers = (threads.get('1 device: kernels') ?? []).map(({ args }) => args?.layer)
  assert.ok(layers.includes('backbone.layer1.0.conv1'), layers.slice(0, 50).join())

  const plain = trainInto('plain', ...more)
  assert.is(plain.code, 0, plain.errors.join('\n'))
  const tensors = (run: string) => readSafetensors(join(folder, run, 'latest.safetensors')).tensors
  const expected = tensors('plain')
  for (const [name, { data }] of tensors('timed')) assert.equal(data, expected.get(name)?.data, name)
})

clocked('the bench profiles its training steps', () => {
  const file = join(folder, 'bench.json')
  const bench = (...args: string[]) =>
    spawnSync(process.execPath, [join('build', 'bench', 'bench.js'), '--profile', file, ...args], { encoding: 'utf8' })
  const { status, stdout, stderr } = bench('--only', 'training step supervised', '--profile-steps', '1')
  assert.is(status, 0, stderr)
  assert.match(stdout, /\d % +\d+ {2}conv2d$/m)
  const programs = slicesOf(readFileSync(file, 'utf8')).get('1 device: programs') ?? []
  assert.equal(
    programs.map(({ name }) => name),
    ['supervised step', 'supervised step'],
  )
  assert.match(bench('--only', 'relu').stderr, '--profile times training steps, and --only relu leaves none')
})

clocked('a profile that cannot be made is refused before the run begins', () => {
  const cases = [
    [['--profile', join(folder, 'trace.json')], /takes 23 iterations .*, and the run has 6/],
    [['--profile', '/nowhere/at/all/trace.json'], /there is no folder \/nowhere\/at\/all/],
    [['--profile-steps', '3'], /--profile-steps needs --profile/],
  ] as const
  for (const [args, pattern] of cases) {
    const { code, errors } = trainInto('refused', ...args)
    assert.is(code, 1)
    assert.is(errors.length, 1, errors.join('\n'))
    assert.match(errors[0] ?? '', pattern)
    assert.not.ok(existsSync(join(folder, 'refused')))
  }
})

test.run()
