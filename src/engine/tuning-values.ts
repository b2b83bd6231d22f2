import type { Device } from './device.js'
import { byteLength, isFloat } from './shape.js'
import type { Store } from './store.js'

/**
 * Numbers between -1/2 and 1/2 with 24 bits, alike at every call; of f16, two to a word, any sign and fraction under the
 * exponent of 1/4.
 */
const sourceOf = (half: boolean) => `struct Uniforms { words: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
fn mixed(i: u32) -> u32 {
  return (i * 0x9e3779b1u) >> 8;
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * u.grid_x) * 64u + lane;
  if (i >= u.words) {
    return;
  }
  ${
    half
      ? 'y[i] = (0x3400u | (mixed(2u * i) & 0x83ffu)) | ((0x3400u | (mixed(2u * i + 1u) & 0x83ffu)) << 16);'
      : 'y[i] = bitcast<u32>(f32(mixed(i)) / 16777216.0 - 0.5);'
  }
}
`

/** Fills the variables of a store by kernels, so that nothing is made in JavaScript and sent; integers stay zeros. */
export async function fillVariables(device: Device, store: Store): Promise<void> {
  for (const { name, spec } of store.all()) {
    const buffer = store.buffer(name)
    if (!isFloat(spec)) continue
    const pipeline = await device.pipeline('tuning values', sourceOf(spec.dtype === 'f16'), 'uw')
    const words = Math.ceil(byteLength(spec) / 4)
    const groups = Math.ceil(words / 64)
    const columns = Math.min(groups, 65535)
    device.scoped(() => {
      const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST
      const uniforms = device.gpu.createBuffer({ label: 'tuning uniforms', size: 16, usage })
      device.gpu.queue.writeBuffer(uniforms, 0, Uint32Array.of(words, columns))
      const bindGroup = device.gpu.createBindGroup({
        layout: device.layout('uw'),
        entries: [
          { binding: 0, resource: { buffer: uniforms } },
          { binding: 1, resource: { buffer, size: 4 * words } },
        ],
      })
      const encoder = device.gpu.createCommandEncoder({ label: 'tuning values' })
      const pass = encoder.beginComputePass()
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bindGroup)
      pass.dispatchWorkgroups(columns, Math.ceil(groups / columns))
      pass.end()
      device.gpu.queue.submit([encoder.finish()])
      uniforms.destroy()
    })
  }
}
