import { open } from '#dist/engine/browser.js'
import type { Device } from '#dist/engine/device.js'
import type { Machine } from '../protocol.js'
import { log, tell } from './host.js'

/** Limits that the page shows. */
const shownLimits = [
  'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'maxStorageBufferBindingSize',
  'maxBufferSize',
] as const

/** The device of the page, which is opened anew where it is lost. */
export class DeviceKeeper {
  private opened: Promise<Device> | undefined
  private losses = 0
  machine: Machine = { reason: 'WebGPU was not asked for yet', runtime: 'wasm' }

  /** Looks what there is. */
  async look(): Promise<Machine> {
    await this.device().catch(() => undefined)
    return this.machine
  }

  /**
   * The device; after a loss another one.
   * @throws Error that says why there is none, and what to do
   */
  device(): Promise<Device> {
    this.opened ??= this.open().catch((error: unknown) => {
      this.opened = undefined
      const reason = error instanceof Error ? error.message : String(error)
      this.machine = { reason, runtime: 'wasm' }
      tell('machine', this.machine)
      throw error
    })
    return this.opened
  }

  private async open(): Promise<Device> {
    const device = await open({ powerPreference: 'high-performance' }).catch((error: unknown) => {
      if (this.losses === 0) throw error
      throw new Error('the browser gives no GPU after it was lost: restart the browser')
    })
    void device.gpu.lost.then(({ reason, message }) => {
      if (reason === 'destroyed') return
      this.losses++
      this.opened = undefined
      log(`the GPU was lost: ${message.split('\n', 1)[0] || reason}`)
    })
    const { vendor, architecture, device: name, driver, software } = device.adapter
    this.machine = {
      adapter: {
        name: name || driver || [vendor, architecture].filter((part) => part).join(' ') || 'a GPU',
        vendor,
        software,
        features: [...device.gpu.features].sort(),
        limits: Object.fromEntries(shownLimits.map((limit) => [limit, device.gpu.limits[limit]])),
      },
      runtime: software ? 'wasm' : 'webgpu',
    }
    tell('machine', this.machine)
    return device
  }
}
