// Prints the most bytes that buffers and textures of the device held at a time.
import { Device } from '#dist/engine/device.js'
import { type MirrorFormat, rowBytes } from '#dist/engine/mirror.js'

let held = 0
let peak = 0
function count<T extends { destroy(): undefined }>(made: T, bytes: number): T {
  const { destroy } = made
  let alive = true
  held += bytes
  peak = Math.max(peak, held)
  made.destroy = () => {
    if (alive) held -= bytes
    alive = false
    return destroy.call(made)
  }
  return made
}

const { check } = Device.prototype
Device.prototype.check = function () {
  const { gpu } = this
  if (!Object.hasOwn(gpu, 'createBuffer')) {
    const { createBuffer, createTexture } = gpu
    gpu.createBuffer = (descriptor) => count(createBuffer.call(gpu, descriptor), descriptor.size)
    gpu.createTexture = (descriptor) => {
      const [, rows = 1] = descriptor.size as number[]
      return count(createTexture.call(gpu, descriptor), rows * rowBytes(descriptor.format as MirrorFormat))
    }
  }
  return check.call(this)
}
process.on('exit', () => console.log(`peak of memory: ${peak}`))
