import { tmpdir } from 'node:os'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { measureOverhead } from '../../bench/overhead.js'
import type { Peer, PeerRun } from '../../bench/peer.js'
import {
  checkPeers,
  disagreement,
  measureBeside,
  type PeerMeasurement,
  peerTasks,
  ratioToFastest,
  summarizePeers,
} from '../../bench/peers.js'
import { residualFlops, residualTask } from '../../bench/residual.js'

const test = suite('bench-peers')

const row = (op: string, ratios: readonly number[]): PeerMeasurement => ({
  op,
  pass: 'forward',
  shape: 'x',
  milliseconds: 1,
  spread: 0,
  peers: {
    ...Object.fromEntries(ratios.map((ratio, i) => [`peer ${i}`, { ratio }])),
    another: { failure: 'none' },
  },
})

test('results are compared relative to the largest value', () => {
  assert.is(disagreement({ out: [100, 1] }, { out: [100, 2] }), 0.01)
  assert.is(disagreement({ y: [1], mean: [1] }, { y: [1] }), 0)
  assert.is(disagreement({ out: [0, 0] }, { out: [0, 0] }), 0)
  assert.is(disagreement({ out: [1, 1] }, { out: [1, Number.NaN] }), Number.POSITIVE_INFINITY)
  assert.is(disagreement({ out: [1, 1] }, { out: [1] }), Number.POSITIVE_INFINITY)
})

test('the fastest peer of each shape is the one to beat', () => {
  assert.is(ratioToFastest(row('conv2d', [3, 2, 9])), 2)
  assert.is(ratioToFastest(row('conv2d', [])), undefined)
  const rows = [row('conv2d', [4, 5]), row('conv2d', [2]), row('conv2d', [8, 7]), row('matmul', [3]), row('relu', [])]
  assert.equal(summarizePeers(rows), [
    { name: 'conv2d, forward', median: 4, worst: 2 },
    { name: 'matmul, forward', median: 3, worst: 3 },
  ])
})

test('every operator that is compared is in the case table', () => {
  const ops = new Set(peerTasks({ crop: 33, batch: 1 }).map(({ row: { op } }) => op))
  for (const op of ['conv2d', 'conv2dInputGrad', 'conv2dWeightGrad', 'matmul', 'batchNormTraining', 'maxPool2d'])
    assert.ok(ops.has(op), op)
  for (const op of ['resizeBilinear', 'crossEntropyMean']) assert.ok(ops.has(op), op)
})

test('a library that fails while it is timed spoils only its own figure', async () => {
  const results = async () => ({ y: Float32Array.of(1) })
  const contender = (run: () => void): PeerRun => ({ run, idle: async () => {}, results, dispose() {} })
  let runs = 0
  const runsOf: Record<string, PeerRun> = {
    steady: contender(() => {}),
    failing: contender(() => {
      if (++runs > 150) throw new Error('no encoder\nand more')
    }),
    wrong: { ...contender(() => {}), results: async () => ({ y: Float32Array.of(2) }) },
  }
  const peers = Object.keys(runsOf).map((name) => ({ name }) as Peer)
  const device = { wait: <T>(promise: Promise<T>) => promise } as Device
  const measured = await measureBeside(
    device,
    contender(() => {}),
    peers,
    async ({ name }) => runsOf[name],
  )
  assert.ok(measured.peers.steady?.timing)
  assert.equal(measured.peers.failing, { failure: 'failed: no encoder' })
  assert.match(measured.peers.wrong?.failure ?? '', /^differs by/)
  const broken = contender(() => {
    throw new Error('ours')
  })
  await measureBeside(device, broken, peers, async () => undefined).then(
    () => assert.unreachable(),
    ({ message }: Error) => assert.is(message, 'ours'),
  )
})

test('without the libraries there is a remedy', () => {
  assert.throws(() => checkPeers(tmpdir()), /--peers: the other libraries are not installed: run `npm run bench:peers`/)
})

test('the residual network has the size it is said to have', () => {
  assert.ok(Math.abs(residualFlops() - 2.75e9) < 0.03e9, `${residualFlops()}`)
  const { blocks, weights } = residualTask()
  assert.equal(
    blocks.map(({ name, stride, shortcut }) => `${name} ${stride} ${shortcut}`),
    [
      'layer1.0 1 false',
      'layer1.1 1 false',
      'layer2.0 2 true',
      'layer2.1 1 false',
      'layer3.0 2 true',
      'layer3.1 1 false',
    ],
  )
  assert.equal(weights['layer3.0.shortcut.weight']?.shape, [1, 1, 32, 64])
})

test('the overhead of a step is measured without a device', async () => {
  const { milliseconds, dispatches } = await measureOverhead('supervised')
  assert.ok(dispatches > 300, `${dispatches} dispatches`)
  assert.ok(milliseconds > 0.1 && milliseconds < 500, `${milliseconds} ms`)
})

test.run()
