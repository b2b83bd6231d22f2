import type { Device } from '#dist/engine/device.js'
import type { Case } from '../cases/case.js'
import { isProduct, openOperator, type Pass } from './operator.js'
import type { Peaks } from './peaks.js'
import { type Timing, timesOf, timingOf } from './timing.js'

/** How long one pass of a case takes, beside the limit that bounds it. */
export interface Measurement extends Timing {
  readonly op: string
  readonly shape: string
  readonly pass: Pass
  readonly kernel: string
  /** Floating-point operations, where these are what bounds the operator. */
  readonly flops?: number
  readonly bytes: number
  readonly gflops?: number
  readonly gbps?: number
  /** Of the adapter's multiply-adds, of its products in half precision, or of its copy bandwidth. */
  readonly share: number
}

/** A timing, rated by the operations or else by the bytes. */
export function rated(
  { milliseconds }: Timing,
  flops: number | undefined,
  bytes: number,
  peaks: Pick<Peaks, 'gflops' | 'gbps'>,
) {
  if (flops === undefined) {
    const gbps = bytes / milliseconds / 1e6
    return { bytes, gbps, share: gbps / peaks.gbps }
  }
  const gflops = flops / milliseconds / 1e6
  return { flops, bytes, gflops, share: gflops / peaks.gflops }
}

/**
 * Times one pass of a case.
 * @param amp products are in half precision, and rated beside the fastest of these
 */
export async function measure(device: Device, row: Case, pass: Pass, peaks: Peaks, amp: boolean): Promise<Measurement> {
  const half = amp && isProduct(row)
  const limits = half ? { ...peaks, gflops: peaks.halfProduct ?? peaks.gflops } : peaks
  const operator = await openOperator(device, row, pass, half)
  try {
    const timing = timingOf(await timesOf(device, operator.run))
    const { kernel, bytes } = operator
    return { op: row.op, shape: row.name, pass, kernel, ...timing, ...rated(timing, row.flops, bytes, limits) }
  } finally {
    operator.destroy()
  }
}
