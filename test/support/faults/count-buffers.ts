// Prints the most bytes that buffers of the device held at a time.
import { Device } from '#dist/engine/device.js'

let held = 0
let peak = 0
const { check } = Device.prototype
Device.prototype.check = function () {
  const { gpu } = this
  if (!Object.hasOwn(gpu, 'createBuffer')) {
    const { createBuffer } = gpu
    gpu.createBuffer = (descriptor) => {
      const buffer = createBuffer.call(gpu, descriptor)
      const { destroy } = buffer
      let alive = true
      held += descriptor.size
      peak = Math.max(peak, held)
      buffer.destroy = () => {
        if (alive) held -= descriptor.size
        alive = false
        return destroy.call(buffer)
      }
      return buffer
    }
  }
  return check.call(this)
}
process.on('exit', () => console.log(`peak of buffers: ${peak}`))
