import type { Device, Layout } from '../engine/device.js'
import { ceilDiv, flatGrid } from '../engine/kernel.js'
import type { GPUBuffer, GPUTexture } from '../engine/webgpu-types.js'
import * as shaders from './shaders.generated.js'

/**
 * What enters and leaves a device as textures. These are no operators: each is submitted at once, between the runs of programs.
 */

/**
 * Copies the pixels of a texture as RGB bytes [H, W, 3], of which alpha is dropped.
 * @param texture rgba8unorm or bgra8unorm, with TEXTURE_BINDING among its usages
 * @param bytes takes them, and zeros up to its end
 * @throws KernelError where the driver refuses the kernel
 */
export const texturePixels = (device: Device, texture: GPUTexture, bytes: GPUBuffer): Promise<void> =>
  submit(device, shaders.texture_pixels, 'tw', [texture, bytes], bytes.size / 4)

/**
 * Gives each pixel of a texture the color of its label.
 * @param labels u32 [H, W]
 * @param colors a word for each class: red in its lowest byte, then green, blue and alpha
 * @param texture W x H of rgba8unorm, with STORAGE_BINDING among its usages
 * @throws KernelError where the driver refuses the kernel
 */
export const labelColors = (device: Device, labels: GPUBuffer, colors: GPUBuffer, texture: GPUTexture): Promise<void> =>
  submit(device, shaders.label_colors, 'rri', [labels, colors, texture], texture.width * texture.height)

async function submit(
  device: Device,
  { name, text }: shaders.Shader,
  pattern: Layout,
  operands: readonly (GPUBuffer | GPUTexture)[],
  threads: number,
): Promise<void> {
  const pipeline = await device.pipeline(name, text, pattern)
  device.alive()
  device.scoped(() => {
    const entries = operands.map((operand, i) => {
      return { binding: i + 1, resource: 'createView' in operand ? operand.createView() : { buffer: operand } }
    })
    const bindGroup = device.gpu.createBindGroup({ label: name, layout: device.layout(pattern), entries })
    const encoder = device.gpu.createCommandEncoder({ label: name })
    const pass = encoder.beginComputePass({ label: name })
    pass.setPipeline(pipeline)
    pass.setBindGroup(0, bindGroup)
    pass.dispatchWorkgroups(...flatGrid(ceilDiv(threads, 64)))
    pass.end()
    device.gpu.queue.submit([encoder.finish()])
  })
}
