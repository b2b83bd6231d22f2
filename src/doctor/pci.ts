import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'

/** A graphics device as Linux lists it. */
export interface PciDevice {
  /** Its address, such as 0000:01:00.0. */
  readonly address: string
  /** Numbers of vendor and device, such as 10de:2684. */
  readonly id: string
  /** The kernel's driver, or undefined where it has none. */
  readonly driver: string | undefined
}

/** The displays and 3D controllers of a machine; none where the system has no such list. */
export function pciDevices(folder = '/sys/bus/pci/devices'): PciDevice[] {
  const contentOf = (...path: string[]) => readFileSync(join(folder, ...path), 'utf8').trim()
  return (
    orUndefined(() => readdirSync(folder).sort())?.flatMap((address) => {
      const kind = orUndefined(() => contentOf(address, 'class'))
      // The first byte of a class is its kind: 3 for displays.
      if (!kind?.startsWith('0x03')) return []
      const id = ['vendor', 'device'].map((name) => contentOf(address, name).replace('0x', '')).join(':')
      return [{ address, id, driver: orUndefined(() => basename(readlinkSync(join(folder, address, 'driver')))) }]
    }) ?? []
  )
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
