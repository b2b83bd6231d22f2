import type { Measurement as TunedCall } from '#dist/engine/autotune.js'
import type { Comparison } from './compare.js'
import type { LoaderMeasurement, WaitMeasurement } from './loader.js'
import type { Measurement } from './measure.js'
import type { OverheadMeasurement } from './overhead.js'
import type { Peaks } from './peaks.js'
import type { ResidualMeasurement } from './residual.js'
import type { StepMeasurement } from './step.js'

export const digits = (value: number): string => value.toFixed(value < 10 ? 2 : 1)
const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

export function printPeaks({ gflops, gbps, bufferCopy, kernelCopy, halfProduct }: Peaks): void {
  const products = halfProduct === undefined ? '' : `, f16 matrix product ${digits(halfProduct)} GFLOP/s`
  const copies = `${digits(bufferCopy)} by copyBufferToBuffer, ${digits(kernelCopy)} by a kernel`
  console.log(`multiply-adds ${digits(gflops)} GFLOP/s${products}, copy ${digits(gbps)} GB/s (${copies})\n`)
}

const columns = (operator: string, shape: string, ms: string, rate: string, share: string, kernel: string): string =>
  [operator.padEnd(32), shape.padEnd(34), ms.padStart(9), rate.padStart(14), share.padStart(7), `  ${kernel}`].join(' ')

export const printOperatorHead = (): void => console.log(columns('operator', 'shape', 'ms', 'rate', 'share', 'kernel'))

export function printOperator({ op, shape, pass, kernel, milliseconds, gflops, gbps, share }: Measurement): void {
  const rate = gflops === undefined ? `${digits(gbps ?? 0)} GB/s` : `${digits(gflops)} GFLOP/s`
  const operator = pass === 'backward' ? `${op}, backward` : op
  console.log(columns(operator, shape, digits(milliseconds), rate, percent(share), kernel))
}

export function printStep(step: StepMeasurement): void {
  const { method, milliseconds, compile, dispatches, planned, live, unshared, images, crop } = step
  console.log(
    `${method.padEnd(12)} ${digits(milliseconds).padStart(9)} ms  ${images.join(' + ')} images of ${crop}x${crop}, ` +
      `${dispatches} dispatches, compiled in ${(compile / 1000).toFixed(1)} s; ` +
      `memory ${mebibytes(planned)} planned, ${(planned / live).toFixed(2)} times what lives at once, ` +
      `${mebibytes(unshared)} without sharing`,
  )
}

export function printResidual({ shape, milliseconds, gflops, share, dispatches }: ResidualMeasurement): void {
  const rate = `${digits(gflops)} GFLOP/s, ${percent(share)} of the multiply-adds`
  console.log(`\nresidual step, ${shape}: ${digits(milliseconds)} ms, ${rate}, ${dispatches} dispatches`)
}

export function printOverhead({ method, milliseconds, dispatches }: OverheadMeasurement): void {
  const what = `JavaScript and Dawn without a device, ResNet-50, ${dispatches} dispatches`
  console.log(`overhead, ${method.padEnd(12)} ${digits(milliseconds).padStart(9)} ms  ${what}`)
}

export function printLoader({ crop, stream, bytes, fromFiles, fromCache }: LoaderMeasurement): void {
  const what = {
    labeled: 'labeled images',
    unlabeled: 'unlabeled images, three views each',
    coefficients: 'unlabeled images, two views and the DCT coefficients of two views each',
  }[stream]
  console.log(
    `loader, crop ${crop}, ${what}: ${fromFiles.toFixed(1)} per second and core from files of ` +
      `${(bytes / 1000).toFixed(0)} kB, ${fromCache.toFixed(1)} from the cache`,
  )
}

export function printWait({ crop, batch, workers, milliseconds, share }: WaitMeasurement): void {
  console.log(
    `PrevMatch step of batch ${batch}, crop ${crop}, reading files in ${workers} threads: ` +
      `${digits(milliseconds)} ms, of which ${percent(share)} waiting for data`,
  )
}

/** The rows of two reports side by side, the slowest last. */
export function printComparison(path: string, rows: readonly Comparison[]): void {
  console.log(`\nagainst ${path}: milliseconds before, now, ratio (above 1 is slower)`)
  for (const { name, before, now, ratio, regressed } of [...rows].sort((a, b) => a.ratio - b.ratio)) {
    const numbers = [digits(before), digits(now), ratio.toFixed(2)].map((text) => text.padStart(9)).join(' ')
    console.log(`${numbers}  ${name}${regressed ? '  REGRESSION' : ''}`)
  }
}

/** A call that was tuned: milliseconds of each kernel, that of the chosen one first. */
export function printTuned(
  { call, kernels, milliseconds, choice, wrong }: TunedCall,
  done: number,
  total: number,
): void {
  const times = kernels.map(({ name }, i) => ({ name, time: milliseconds[i] ?? Number.POSITIVE_INFINITY }))
  const ordered = times.sort((a, b) => Number(b.name === choice) - Number(a.name === choice) || a.time - b.time)
  const shown = ordered.map(({ name, time }) => `${name} ${Number.isFinite(time) ? time.toPrecision(3) : 'unfit'}`)
  console.log(`${done}/${total}  ${call}: ${shown.join('; ')}${wrong ? `; wrong: ${wrong.join(', ')}` : ''}`)
}
