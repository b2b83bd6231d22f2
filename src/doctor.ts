#!/usr/bin/env node
import { createCommand, runCommand } from './command.js'
import { type AdapterSummary, halfShapesOf, matrixConfigsOf } from './engine/adapter.js'
import type { Device } from './engine/device.js'
import type { Tensor } from './engine/ir.js'
import type { SelectKernel } from './engine/kernel-selection.js'
import { findAdapters, open } from './engine/node.js'
import { compile } from './engine/program.js'
import { spec } from './engine/shape.js'
import { matmul } from './kernels/matmul.js'
import { cast } from './kernels/pointwise.js'
import { gpuOption } from './options.js'
import { UserError } from './train/error.js'

const features: readonly (readonly [feature: string, use: string])[] = [
  ['shader-f16', 'half precision'],
  ['subgroups', 'fast matrix products on CPU drivers'],
  ['chromium-experimental-subgroup-matrix', 'tensor cores'],
  ['timestamp-query', 'kernel times'],
]

const limits = [
  ['maxStorageBufferBindingSize', 'largest binding'],
  ['maxBufferSize', 'largest buffer'],
  ['maxStorageBuffersPerShaderStage', 'buffers of a kernel'],
  ['maxComputeWorkgroupStorageSize', 'workgroup memory'],
  ['maxComputeInvocationsPerWorkgroup', 'threads of a workgroup'],
] as const satisfies readonly (readonly [keyof GPUSupportedLimits, string])[]

const size = (value: number): string =>
  value >= 2 ** 20 ? `${Math.round(value / 2 ** 20).toLocaleString('en')} MiB` : value.toLocaleString('en')

const row = (name: string, value: string): void => console.log(`  ${name.padEnd(40)}${value}`)

function describe(adapter: GPUAdapter, { vendor, device, driver, software }: AdapterSummary): void {
  console.log(`${device || 'adapter without a name'}${software ? ' (software: runs on the CPU)' : ''}`)
  row('vendor', vendor || 'unknown')
  row('driver', driver || 'unknown')
  row('backend', process.platform === 'darwin' ? 'Metal' : process.platform === 'win32' ? 'Direct3D 12' : 'Vulkan')
  const { subgroupMinSize = 0, subgroupMaxSize = 0 } = adapter.info
  row(
    'subgroup size',
    subgroupMinSize === subgroupMaxSize ? `${subgroupMinSize}` : `${subgroupMinSize} to ${subgroupMaxSize}`,
  )
  for (const [feature, use] of features) row(`${feature}`, `${adapter.features.has(feature) ? 'yes' : 'no'} (${use})`)
  const shapes = halfShapesOf(matrixConfigsOf(adapter)).map(({ M, N, K }) => `${M}x${N}x${K}`)
  row('matrices of f16, added up in f32', shapes.join(', ') || 'none')
  for (const [limit, use] of limits) row(limit, `${size(adapter.limits[limit])} (${use})`)
}

/**
 * Multiplies two matrices on the device and compares with the CPU. Throws where they differ.
 * @param units in half precision on matrix units
 */
async function selfTest(device: Device, units: boolean): Promise<string> {
  const [m, k, n] = [65, 130, 67]
  const values = (count: number, step: number) =>
    Float32Array.from({ length: count }, (_, i) => ((i * step) % 17) / 8 - 1)
  const a = values(m * k, 5)
  const b = values(k * n, 7)
  const inputs = { a: spec([m, k]), b: spec([k, n]) }
  const type = units ? 'f16' : 'f32'
  let op: Tensor['node']['op']
  const product = (t: Record<'a' | 'b', Tensor>) => {
    const y = matmul(cast(t.a, type), cast(t.b, type))
    op = y.node.op
    return { y: cast(y, 'f32') }
  }
  let kernel = ''
  const selectKernel: SelectKernel = (node, candidates) => {
    const chosen = candidates.find(({ usesMatrixUnits }) => units && usesMatrixUnits) ?? candidates[0]
    if (node.op === op) kernel = chosen?.name ?? ''
    return chosen
  }
  const program = await compile(device, inputs, product, { label: 'self-test', selectKernel })
  const begin = performance.now()
  program.run({ a, b })
  const y = await program.read('y')
  const elapsed = performance.now() - begin
  // Eighths multiply and add without rounding here; in half precision the sums are rounded once, to 11 bits.
  const bound = units ? 2 ** -11 : 0
  let worst = 0
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      let exact = 0
      for (let i = 0; i < k; i++) exact += (a[row * k + i] ?? 0) * (b[i * n + column] ?? 0)
      const difference = Math.abs(exact - (y[row * n + column] ?? Number.NaN)) - bound * Math.abs(exact)
      worst = Math.max(worst, difference)
    }
  }
  if (!(worst <= 1e-4)) {
    throw new UserError(
      `the matrix product (${kernel}) is wrong by ${worst}: this driver computes wrongly, update it or use another --gpu`,
    )
  }
  return `${m}x${k}x${n} matrix product correct (${kernel}; ${elapsed.toFixed(1)} ms)`
}

const command = createCommand('doctor', 'Shows what WebGPU offers on this machine, and tests it.', {
  examples: ['', '--gpu nvidia'],
}).addOption(gpuOption())

await runCommand(async () => {
  const { gpu } = command.parse().opts<{ gpu?: string }>()
  console.log(`Node ${process.version} on ${process.platform} ${process.arch}`)
  for (const { adapter, summary } of await findAdapters()) describe(adapter, summary)
  const device = await open({ gpu })
  console.log(`using: ${device.adapter.device}`)
  row('self-test', await selfTest(device, false))
  if (device.traits.matrixUnits) row('self-test in half precision', await selfTest(device, true))
  if (device.adapter.software) {
    console.log('A GPU trains many times faster: where this machine has one, install its Vulkan driver.')
  }
  device.destroy()
})
