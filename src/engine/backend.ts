import type { AdapterSummary, Backend } from './adapter.js'

/** The backends in which adapters are looked for. */
export function backendsOf(platform: string): readonly Backend[] {
  if (platform === 'win32') return ['vulkan', 'd3d12']
  return platform === 'darwin' ? ['metal'] : ['vulkan']
}

/** An adapter as one backend offers it. */
export interface Offer {
  readonly summary: AdapterSummary
  /** Whether it has matrix units that kernels can use. */
  readonly matrixUnits: boolean
}

/**
 * The offers of several backends in the order in which they are taken: those of one backend stay together and in their
 * order. A backend with a GPU comes before one that has none; of several, one whose first GPU has matrix units, then
 * Direct3D, which is what Windows tests its drivers with.
 */
export function orderByBackend<T extends Offer>(offers: readonly T[]): T[] {
  const backends = [...new Set(offers.map(({ summary }) => summary.backend))]
  const rankOf = (backend: Backend | undefined): number => {
    const gpu = offers.find(({ summary }) => summary.backend === backend && !summary.software)
    if (!gpu) return 3
    if (gpu.matrixUnits) return 0
    return backend === 'd3d12' ? 1 : 2
  }
  // Sorting is stable: among equals the order of the offers decides.
  const sorted = backends.sort((a, b) => rankOf(a) - rankOf(b))
  return sorted.flatMap((backend) => offers.filter(({ summary }) => summary.backend === backend))
}

/** A device as its driver names it. */
export interface ListedDevice {
  readonly backend: string
  readonly name: string
}

/** The devices that Dawn lists where it is asked for one that is not there. */
export const parseDeviceList = (message: string): ListedDevice[] =>
  [...message.matchAll(/^ \* backend: '([^']*)', name: '(.*)'$/gm)].map(([, backend = '', name = '']) => ({
    backend,
    name,
  }))

/** Whether a listed device is an adapter's, which has its name in small letters, all else as hyphens. */
export const isListedAs = ({ backend, device }: AdapterSummary, listed: ListedDevice): boolean =>
  backend === listed.backend && plain(device) === plain(listed.name)

const plain = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
