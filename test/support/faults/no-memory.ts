// The device has no memory for the buffers of the training step, as Dawn would report it.
import { Device } from '#dist/engine/device.js'

const { guarded } = Device.prototype
Device.prototype.guarded = async function (what, body) {
  if (!/^allocating .* for \w+ step$/.test(await what())) return guarded.call(this, what, body) as never
  const { gpu } = this
  const { popErrorScope } = gpu
  let scopes = 0
  gpu.popErrorScope = async () => {
    const reported = await popErrorScope.call(gpu)
    return ++scopes === 1 ? new GPUOutOfMemoryError('Out of device memory.') : reported
  }
  return guarded.call(this, what, body).finally(() => {
    gpu.popErrorScope = popErrorScope
  }) as never
}
