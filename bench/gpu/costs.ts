// node build/bench/gpu/costs.js [--gpu NAME] [--json FILE]: bandwidth of copying, and what a dispatch, a submission, a wait
// and a readback cost that do next to nothing.
import { Command } from 'commander'
import { runCommand } from '#dist/command.js'
import type { Device } from '#dist/engine/device.js'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { writeAtomically } from '#dist/train/io/files.js'
import { copyPeaks } from '../peaks.js'
import { timesOf } from '../timing.js'

/** Adds one to a word of a buffer: dispatches of it wait for one another. */
const source = `@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x == 0) { y[0] += 1; }
}
`
/** Dispatches of one submission. */
const dispatches = 1000

/** Microseconds of one dispatch of a long submission. */
async function dispatchCost(device: Device): Promise<number> {
  const buffer = device.storage('word', 256)
  const pipeline = await device.pipeline('count', source, 'w')
  const entries = [{ binding: 1, resource: { buffer } }]
  const bindGroup = device.gpu.createBindGroup({ layout: device.layout('w'), entries })
  const times = await timesOf(device, () => {
    const encoder = device.gpu.createCommandEncoder({ label: 'dispatches' })
    const pass = encoder.beginComputePass()
    pass.setPipeline(pipeline)
    pass.setBindGroup(0, bindGroup)
    for (let k = 0; k < dispatches; k++) pass.dispatchWorkgroups(1)
    pass.end()
    device.gpu.queue.submit([encoder.finish()])
  })
  buffer.destroy()
  return (1000 * Math.min(...times)) / dispatches
}

/** Microseconds of a submission of one small copy, in a long row of them. */
async function submitCost(device: Device): Promise<number> {
  const buffer = device.storage('words', 256)
  const times = await timesOf(device, () => {
    const encoder = device.gpu.createCommandEncoder({ label: 'submission' })
    encoder.clearBuffer(buffer, 0, 4)
    device.gpu.queue.submit([encoder.finish()])
  })
  buffer.destroy()
  return 1000 * Math.min(...times)
}

/** Milliseconds of `body`, the best of several. */
async function best(body: () => Promise<unknown>): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let k = 0; k < 20; k++) {
    const begin = performance.now()
    await body()
    least = Math.min(least, performance.now() - begin)
  }
  return least
}

const command = new Command('costs')
  .option('--gpu <name>', 'part of the name of the adapter to use')
  .option('--json <file>', 'also write the results there')
  .action(({ gpu, json }: { gpu?: string; json?: string }) =>
    runCommand(async () => {
      const device = await open({ gpu })
      const store = new Store(device, 'costs')
      const found: Record<string, number> = {}
      const keep = (name: string, value: number, unit: string) => {
        found[name] = value
        console.log(`${name}: ${value.toPrecision(3)} ${unit}`)
        if (json !== undefined) writeAtomically(json, [Buffer.from(`${JSON.stringify(found)}\n`)])
      }
      keep('dispatch', await dispatchCost(device), 'µs, each behind the one before')
      keep('submission', await submitCost(device), 'µs')
      keep('wait', 1000 * (await best(() => device.idle())), 'µs for an idle device')
      const word = device.storage('word', 256)
      keep('readback', 1000 * (await best(() => device.read([{ buffer: word, bytes: 4 }]))), 'µs for one word')
      word.destroy()
      const { bufferCopy, kernelCopy } = await copyPeaks(device, store)
      keep('bufferCopy', bufferCopy, 'GB/s by copyBufferToBuffer, read and written together')
      keep('kernelCopy', kernelCopy, 'GB/s by the fastest of a few kernels')
      store.destroy()
      device.destroy()
    }),
  )
await command.parseAsync()
