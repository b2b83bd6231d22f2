import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { compile } from '#dist/engine/program.js'
import { type Data, type Spec, spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormSynchronized } from '#dist/kernels/batchnorm-synchronized.js'
import { type Exchange, sumOverRanks } from '#dist/kernels/exchange.js'
import { mul, sum } from '#dist/kernels/pointwise.js'
import type { ProcessGroup } from '#dist/train/distributed/group.js'
import { distributedOrder } from '#dist/train/distributed/sampler.js'
import { torchPermutation } from '#dist/train/distributed/torch-permutation.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, toFloat32 } from '#dist/train/io/safetensors.js'
import { localRanks } from '../support/local-ranks.js'
import type { GoldenCase } from './case.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { type CaseResult, largestDifference } from './report.js'

interface Rank {
  readonly rank: number
  readonly exchange: Exchange
}

/**
 * The ranks of this process in a trajectory that several recorded: its own one, where as many processes run; without
 * others all of them. Undefined where one process recorded it.
 */
export function ranksOf(folder: string, group: ProcessGroup): readonly Rank[] | undefined {
  const { world_size: size = 1 } = readJson<{ readonly world_size?: number }>(join(folder, 'config.json'))
  if (size === 1) return undefined
  if (group.size === size) return [{ rank: group.rank, exchange: group }]
  if (group.size === 1) return localRanks(size).map((exchange, rank) => ({ rank, exchange }))
  throw new UserError(`${folder} was recorded by ${size} ranks, not ${group.size}: mpirun -n ${size}, or none`)
}

/** Whether all ranks end with the same bits. */
export async function checkEqualStates(
  tensors: ReadonlyMap<string, FileTensor>,
  exchange: Exchange,
): Promise<CaseResult> {
  const hash = createHash('sha256')
  for (const [name, { data }] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(name)
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  }
  const bytes = Float32Array.from(hash.digest())
  const all = await exchange.gather(bytes)
  const differing = all.filter((byte, i) => byte !== bytes[i % bytes.length]).length
  return { name: 'states of all ranks, bit for bit', error: differing, tolerance: 0 }
}

/** A tensor of the file as the engine has it: maps NHWC. */
function load(file: TensorFile, name: string): { readonly spec: Spec; readonly data: Float32Array } {
  const tensor = file.get(name)
  const data = toFloat32(tensor)
  const [n = 1, c = 1, h = 1, w = 1] = tensor.shape
  if (tensor.shape.length !== 4) return { spec: spec(tensor.shape), data }
  return { spec: spec([n, h, w, c]), data: channelsLast(data, tensor.shape) }
}

/** What a rank computes of a case: outputs, gradients and their means, under the names of the file. */
async function runRank(
  device: Device,
  row: GoldenCase,
  file: TensorFile,
  { rank, exchange }: Rank,
): Promise<Map<string, Data>> {
  const { momentum = 0.1, eps = 1e-5 } = row.params as { readonly momentum?: number; readonly eps?: number }
  const shared = ['weight', 'bias', 'running_mean', 'running_var'] as const
  const x = load(file, `${row.id}/in/x_rank${rank}`)
  const dy = load(file, `${row.id}/gout/y_rank${rank}`)
  const others = Object.fromEntries(shared.map((name) => [name, load(file, `${row.id}/in/${name}`)])) as Record<
    (typeof shared)[number],
    ReturnType<typeof load>
  >
  const { weight, bias, running_mean: mean, running_var: variance } = others
  const inputs = { x: x.spec, dy: dy.spec, w: weight.spec, b: bias.spec, mean: mean.spec, variance: variance.spec }
  const program = await compile(device, inputs, (t) => {
    const state = { weight: t.w, bias: t.b, runningMean: t.mean, runningVar: t.variance }
    const normalized = batchNormSynchronized(t.x, state, exchange, { momentum, eps })
    const [dx, dw, db] = grad(sum(mul(normalized.y, t.dy)), [t.x, t.w, t.b])
    if (!dx || !dw || !db) throw new Error('unreachable: three gradients were asked for')
    const [meanOfWeight, meanOfBias] = sumOverRanks([dw, db], exchange, exchange.size)
    if (!meanOfWeight || !meanOfBias) throw new Error('unreachable: two means were asked for')
    return {
      [`out/y_rank${rank}`]: normalized.y,
      'out/running_mean': normalized.runningMean,
      'out/running_var': normalized.runningVar,
      [`gin/x_rank${rank}`]: dx,
      [`gin/weight_rank${rank}`]: dw,
      [`gin/bias_rank${rank}`]: db,
      'gin/weight_mean': meanOfWeight,
      'gin/bias_mean': meanOfBias,
    }
  })
  const data = { x: x.data, dy: dy.data, w: weight.data, b: bias.data, mean: mean.data, variance: variance.data }
  await program.runAsync(data)
  const own = ['out/y', 'gin/x', 'gin/weight', 'gin/bias'].map((name) => `${name}_rank${rank}`)
  const names = [...own, 'out/running_mean', 'out/running_var', 'gin/weight_mean', 'gin/bias_mean']
  const values = await program.readAll(names)
  program.destroy()
  return new Map(names.map((name, i) => [name, values[i] ?? new Float32Array()]))
}

/** Compares batch norm over ranks with `folder`/syncbn.json, all ranks of a case in this process. */
export async function checkSynchronized(device: Device, folder: string): Promise<CaseResult[]> {
  const { cases } = readJson<{ readonly cases: readonly GoldenCase[] }>(join(folder, 'syncbn.json'))
  const file = new TensorFile(join(folder, 'syncbn.safetensors'))
  const results: CaseResult[] = []
  for (const row of cases) {
    const size = Number(row.params.world_size)
    const ranks = localRanks(size).map((exchange, rank) => runRank(device, row, file, { rank, exchange }))
    for (const [rank, found] of (await Promise.all(ranks)).entries()) {
      for (const [name, values] of found) {
        const error = largestDifference(values, load(file, `${row.id}/${name}`).data)
        results.push({ name: `${row.id} on rank ${rank}: ${name}`, error, tolerance: row.atol[name] ?? 0 })
      }
    }
  }
  return results
}

interface SamplerCase {
  readonly n_unlabeled: number
  readonly world_size: number
  readonly batch_size: number
  readonly epoch: number
  readonly permutation: readonly number[]
  readonly ranks: readonly { readonly positions: readonly number[] }[]
}

/** Compares the orders of lists with `folder`/sampler.json. */
export function checkSampler(folder: string): CaseResult[] {
  const { cases } = readJson<{ readonly cases: readonly SamplerCase[] }>(join(folder, 'sampler.json'))
  return cases.flatMap(({ n_unlabeled: length, world_size: size, epoch, permutation, ranks }) => {
    const name = `${length} images, ${size} ranks, epoch ${epoch}`
    const ofRanks = ranks.map(({ positions }, rank) => ({
      name: `${name}: rank ${rank}`,
      error: largestDifference(distributedOrder(length, epoch, { rank, size }), positions),
      tolerance: 0,
    }))
    const error = largestDifference(torchPermutation(length, epoch), permutation)
    return [{ name: `${name}: permutation`, error, tolerance: 0 }, ...ofRanks]
  })
}
