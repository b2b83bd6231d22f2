import { summarizeAdapter } from '#dist/engine/adapter.js'
import { type Device, openDevice } from '#dist/engine/device.js'
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
    if (!isSecureContext)
      throw new Error('pages get WebGPU from https:// and from this machine alone: open the page so')
    if (!('gpu' in navigator)) {
      throw new Error('this browser has no WebGPU: take a recent Chrome, Edge, Safari or Firefox, or turn it on there')
    }
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' })
    if (!adapter) {
      throw new Error(
        this.losses > 0
          ? 'the browser gives no GPU after it was lost: restart the browser'
          : 'this browser has WebGPU, but no adapter for it: update the GPU driver, or allow its use in the settings',
      )
    }
    const device = await openDevice(adapter, summarizeAdapter(adapter))
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
