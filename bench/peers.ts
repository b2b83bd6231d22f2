import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Device } from '#dist/engine/device.js'
import { findAdapter } from '#dist/engine/node.js'
import { UserError } from '#dist/train/error.js'
import { GraphBuilder } from '#dist/train/io/protobuf.js'
import type { Case, Setting } from '../cases/case.js'
import { benchCases } from '../cases/index.js'
import { type Operator, openOperator } from './operator.js'
import type { HostTensor, Peer, PeerModule, PeerRun, Task, TaskPass } from './peer.js'
import { openResidual, residualName, residualTask } from './residual.js'
import { median, type Timing, timingOf } from './timing.js'

/** The libraries' modules, compiled in a package of their own. */
const built = fileURLToPath(new URL('../../bench/peers/build', import.meta.url))
const modulesIn = (folder: string): string[] => ['tfjs.js', 'jax.js', 'onnx.js'].map((file) => join(folder, file))

/** Throws a UserError where the other libraries are not installed. */
export function checkPeers(folder = built): void {
  if (modulesIn(folder).every((path) => existsSync(path))) return
  throw new UserError('--peers: the other libraries are not installed: run `npm run bench:peers`')
}

/** Opens the other libraries, each on a device of its own of the same adapter. */
export async function openPeers(device: Device, gpu: string | undefined): Promise<Peer[]> {
  const requestAdapter = async () => (await findAdapter({ gpu })).adapter
  const gpuOfAll = { requestAdapter, wgslLanguageFeatures: new Set(), getPreferredCanvasFormat: () => 'rgba8unorm' }
  const value = { userAgent: 'Node.js', platform: process.platform, gpu: gpuOfAll }
  Object.defineProperty(globalThis, 'navigator', { value, configurable: true })
  const wait = <T>(promise: Promise<T>) => device.wait(promise)
  const peers: Peer[] = []
  for (const path of modulesIn(built)) {
    const { open } = (await import(pathToFileURL(path).href)) as PeerModule
    peers.push(await open({ wait, GraphBuilder }))
  }
  return peers
}

/** What is compared of which operator. */
const compared: Readonly<Record<string, readonly TaskPass[]>> = {
  conv2d: ['forward'],
  conv2dInputGrad: ['forward'],
  conv2dWeightGrad: ['forward'],
  matmul: ['forward'],
  batchNormTraining: ['training'],
  batchNormEvaluation: ['forward'],
  maxPool2d: ['forward', 'training'],
  globalAveragePool: ['forward', 'training'],
  resizeBilinear: ['forward', 'training'],
  softmax: ['forward'],
  layerNorm: ['forward', 'training'],
  gelu: ['forward', 'training'],
  batchedMatmul: ['forward'],
  attention: ['forward', 'training'],
  convTranspose2d: ['forward'],
  crossEntropyMean: ['training'],
}

export interface PeerTask {
  readonly row: Case
  readonly pass: TaskPass
}

export const peerTasks = (setting: Setting): PeerTask[] =>
  benchCases(setting).flatMap((row) => (compared[row.op] ?? []).map((pass) => ({ row, pass })))

/** How a peer did: its time, or why there is none. */
export interface PeerResult {
  readonly timing?: Timing
  /** Its median by ours: how many times faster we are. */
  readonly ratio?: number
  readonly failure?: string
}

/** Times of one task, ours and the peers' by their names. */
export interface PeerMeasurement extends Timing {
  readonly op: string
  readonly pass: TaskPass
  readonly shape: string
  readonly peers: Readonly<Record<string, PeerResult>>
}

type Results = Record<string, ArrayLike<number>>

/** Largest difference relative to the largest value, over the results that both have. */
export function disagreement(ours: Results, theirs: Results): number {
  let worst = 0
  for (const [name, expected] of Object.entries(ours)) {
    const actual = theirs[name]
    if (!actual) continue
    if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
    let [difference, largest] = [0, 0]
    for (let i = 0; i < expected.length; i++) {
      const distance = Math.abs((expected[i] ?? 0) - (actual[i] ?? 0))
      difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(difference, distance)
      largest = Math.max(largest, Math.abs(expected[i] ?? 0))
    }
    worst = Math.max(worst, difference / (largest || 1))
  }
  return worst
}

/** Sums of thousands of float32 in another order differ by less. */
const tolerance = 1e-3

type Contender = Pick<PeerRun, 'run' | 'idle'>

/** Milliseconds that the runs of one contender take in its turn, which is waited for once, and the most such runs. */
const batchTime = 40
const maxRuns = 100

/**
 * Times contenders in turns, so that what else the machine does meets all of them alike. All have run before; one that
 * fails nevertheless gives its error, and the others go on.
 */
async function inTurns(device: Device, contenders: readonly Contender[]): Promise<(Timing | Error)[]> {
  const turns = contenders.map((contender) => ({
    contender,
    runs: 1,
    times: [] as number[],
    error: undefined as unknown,
  }))
  const batch = async (turn: (typeof turns)[number]): Promise<number> => {
    const started = performance.now()
    try {
      for (let k = 0; k < turn.runs; k++) await turn.contender.run()
      await device.wait(turn.contender.idle())
    } catch (error) {
      turn.error = error
    }
    return (performance.now() - started) / turn.runs
  }
  for (const turn of turns) {
    // Waiting takes a while by itself, so that the time of few runs does not tell how many there should be.
    let time = await batch(turn)
    while (time * turn.runs < batchTime / 2 && turn.runs < maxRuns) {
      turn.runs = Math.min(maxRuns, Math.ceil(batchTime / time))
      time = await batch(turn)
    }
  }
  const rounds = turns.some(({ runs }) => runs === 1) ? 3 : 5
  for (let round = 0; round < rounds; round++) {
    for (const turn of turns) if (turn.error === undefined) turn.times.push(await batch(turn))
  }
  return turns.map(({ times, error }) => {
    if (error === undefined) return timingOf(times)
    return error instanceof Error ? error : new Error(String(error))
  })
}

interface Entry {
  readonly peer: Peer
  readonly run?: PeerRun
  readonly failure?: string
}

/** Times ours beside the peers' that give the same results. */
export async function measureBeside(
  device: Device,
  ours: Contender & { results(): Promise<Results> },
  peers: readonly Peer[],
  open: (peer: Peer) => Promise<PeerRun | undefined>,
): Promise<{ timing: Timing; peers: Record<string, PeerResult> }> {
  const expected = await ours.results()
  const entries: Entry[] = []
  for (const peer of peers) entries.push(await opened(device, peer, open, expected))
  try {
    const ready = entries.filter((entry) => entry.run !== undefined)
    const [timing, ...others] = await inTurns(device, [ours, ...ready.flatMap(({ run }) => run ?? [])])
    if (!timing || timing instanceof Error) throw timing ?? new Error('unreachable: ours is timed')
    const results = entries.map(({ peer, run, failure }): [string, PeerResult] => {
      const theirs = run && others[ready.findIndex((entry) => entry.run === run)]
      if (!theirs) return [peer.name, { failure: failure ?? 'none' }]
      if (theirs instanceof Error) return [peer.name, { failure: failureOf(theirs) }]
      return [peer.name, { timing: theirs, ratio: theirs.milliseconds / timing.milliseconds }]
    })
    return { timing, peers: Object.fromEntries(results) }
  } finally {
    for (const { run } of entries) run?.dispose()
  }
}

async function opened(
  device: Device,
  peer: Peer,
  open: (peer: Peer) => Promise<PeerRun | undefined>,
  expected: Results,
): Promise<Entry> {
  let run: PeerRun | undefined
  try {
    run = await open(peer)
    if (!run) return { peer, failure: 'none' }
    const difference = disagreement(expected, await device.wait(run.results()))
    if (difference <= tolerance) return { peer, run }
    run.dispose()
    return { peer, failure: `differs by ${difference.toExponential(1)}` }
  } catch (error) {
    return { peer, failure: failureOf(error) }
  }
}

const failureOf = (error: unknown): string =>
  `failed: ${(error instanceof Error ? error.message : String(error)).split('\n')[0]}`

function taskOf({ row, pass }: PeerTask, { attributes, inputs, results }: Operator): Task {
  const tensors = [...inputs].map(([name, tensor]): [string, HostTensor] => [name, tensor as HostTensor])
  return { op: row.op, pass, attributes, inputs: Object.fromEntries(tensors), results }
}

/** Times an operator beside the peers'. */
export async function measureTask(device: Device, peers: readonly Peer[], task: PeerTask): Promise<PeerMeasurement> {
  const { row, pass } = task
  const operator = await openOperator(device, row, pass)
  try {
    const ours = {
      run: () => operator.run(),
      idle: () => device.idle(),
      async results() {
        operator.run()
        const values: Record<string, ArrayLike<number>> = {}
        for (const name of Object.keys(operator.results)) values[name] = await operator.read(name)
        return values
      },
    }
    const theirs = taskOf(task, operator)
    const { timing, peers: results } = await measureBeside(device, ours, peers, (peer) => peer.operator(theirs))
    return { op: row.op, pass, shape: row.name, ...timing, peers: results }
  } finally {
    operator.destroy()
  }
}

/** How many times faster we are than the fastest peer; undefined where there is none. */
export function ratioToFastest({ peers }: PeerMeasurement): number | undefined {
  const ratios = Object.values(peers).flatMap(({ ratio }) => ratio ?? [])
  return ratios.length > 0 ? Math.min(...ratios) : undefined
}

/** Median and worst ratio of each operator to the fastest peer of each shape. */
export function summarizePeers(rows: readonly PeerMeasurement[]): { name: string; median: number; worst: number }[] {
  const byName = new Map<string, number[]>()
  for (const row of rows) {
    const ratio = ratioToFastest(row)
    const name = `${row.op}, ${row.pass}`
    if (ratio !== undefined) byName.set(name, [...(byName.get(name) ?? []), ratio])
  }
  return [...byName].map(([name, ratios]) => ({ name, median: median(ratios), worst: Math.min(...ratios) }))
}

/** Times a whole training step of the small residual network beside the peers'. */
export async function measureResidualTask(device: Device, peers: readonly Peer[]): Promise<PeerMeasurement> {
  const task = residualTask()
  const step = await openResidual(device, task)
  try {
    const { timing, peers: results } = await measureBeside(device, step, peers, (peer) => peer.residual(task))
    return { op: 'residual step', pass: 'training', shape: residualName, ...timing, peers: results }
  } finally {
    step.destroy()
  }
}
