import { test } from 'uvu'
import type { Device } from '#dist/engine/device.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { skipUnless } from './skip.js'

/** Registers a test that gets the device. */
export type DeviceTest = (name: string, body: (device: Device) => void | Promise<void>) => void

/**
 * For a file whose tests need a device: they are skipped where there is no adapter, and the device is closed behind the
 * last one.
 */
export async function onDevice(): Promise<{ readonly device: Device | undefined; readonly deviceTest: DeviceTest }> {
  const available = (await findAdapters()).length > 0
  const device = available ? await open() : undefined
  const register = skipUnless(available, 'there is no WebGPU adapter')
  test.after(() => device?.destroy())
  const deviceTest: DeviceTest = (name, body) =>
    register(name, async () => {
      if (!device) throw new Error('unreachable: the test is skipped without a device')
      await body(device)
    })
  return { device, deviceTest }
}
