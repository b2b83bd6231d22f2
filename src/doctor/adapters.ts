import { type AdapterTraits, backendNames, type MatrixConfig, matrixConfigsOf } from '../engine/adapter.js'
import type { ListedDevice } from '../engine/backend.js'
import type { HalfStores } from '../engine/half-stores.js'
import type { FoundAdapter } from '../engine/node.js'
import type { PciDevice } from './pci.js'

/** Rows of a table: what, and its value. */
export type Rows = (readonly [name: string, value: string])[]

const features: readonly (readonly [feature: string, use: string])[] = [
  ['shader-f16', 'half precision'],
  ['subgroups', 'fast matrix products on CPU drivers'],
  ['subgroup-size-control', 'kernels for one size of subgroups'],
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

/** What an adapter offers: a title and a table. */
export function describeAdapter({ adapter, summary }: FoundAdapter): { title: string; rows: Rows } {
  const { vendor, device, driver, software, backend } = summary
  const { subgroupMinSize: least = 0, subgroupMaxSize: most = 0 } = adapter.info
  const rows: Rows = [
    ['vendor', vendor || 'unknown'],
    ['driver', driver || 'unknown'],
    ['backend', backend ? backendNames[backend] : 'unknown'],
    ['subgroup size', least === most ? `${least}` : `${least} to ${most}`],
    ...features.map(([name, use]): Rows[number] => [name, `${adapter.features.has(name) ? 'yes' : 'no'} (${use})`]),
    ...matrixRows(matrixConfigsOf(adapter)),
    ...limits.map(([limit, use]): Rows[number] => [limit, `${size(adapter.limits[limit])} (${use})`]),
  ]
  const title = `${device || 'adapter without a name'}${software ? ' (software: runs on the CPU)' : ''}`
  return { title, rows }
}

/** The shapes of matrices by the types of factors and sums; what kernels use comes first, absent or not. */
export function matrixRows(configs: readonly MatrixConfig[]): Rows {
  const shapes = new Map<string, Set<string>>([['matrices of f16, added up in f32', new Set()]])
  for (const { factors, sums, M, N, K } of configs) {
    const kind = `matrices of ${factors}, added up in ${sums}`
    shapes.set(kind, (shapes.get(kind) ?? new Set()).add(`${M}x${N}x${K}`))
  }
  return [...shapes].map(([kind, each]) => [kind, [...each].join(', ') || 'none'])
}

/** How a device stores f16, in words. */
export function describeHalfStores(stores: HalfStores | undefined, { half }: Pick<AdapterTraits, 'half'>): string {
  if (!stores) return half ? 'not known: the driver refuses the kernel that tries it' : 'none'
  const faults = [
    ...(stores.rounds ? [] : ['numbers are not rounded to the nearest']),
    ...(stores.overflows ? [] : ['what is too large does not become infinite']),
    ...(stores.subnormals ? [] : ['what is below 2^-14 becomes 0']),
  ]
  return faults.length === 0 ? 'exact' : `${faults.join(', ')}: kernels round themselves`
}

const listedName = ({ name, backend }: ListedDevice): string =>
  `${name} (${(backendNames as Record<string, string>)[backend] ?? backend})`

/**
 * The physical devices of a machine, as drivers list them, then as the system does, and how one is chosen.
 * @param listed by Dawn, identical ones each by itself
 */
export function describeDevices(listed: readonly ListedDevice[], pci: readonly PciDevice[]): string[] {
  const counts = new Map<string, number>()
  for (const device of listed) counts.set(listedName(device), (counts.get(listedName(device)) ?? 0) + 1)
  const several = [...counts].filter(([, count]) => count > 1)
  return [
    ...[...counts].map(([name, count]) => `  ${count > 1 ? `${count} times ` : ''}${name}`),
    ...pci.map(({ address, id, driver }) => `  PCI ${address}: ${id}, ${driver ? `driver ${driver}` : 'no driver'}`),
    '  --gpu takes a part of a name, of a driver or of a backend; without it the first adapter below is used.',
    ...several.map(
      ([name, count]) =>
        `  ${count} devices are called ${name}: WebGPU opens the first and cannot name another. Show a process one of them ` +
        'only: a container with one GPU, or DRI_PRIME=pci-0000_01_00_0 where Mesa selects devices.',
    ),
  ]
}
