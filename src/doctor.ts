#!/usr/bin/env node
import { createCommand, runCommand } from './command.js'
import { describeAdapter, describeDevices, describeHalfStores } from './doctor/adapters.js'
import { testKernels } from './doctor/kernel-tests.js'
import { pciDevices } from './doctor/pci.js'
import { showAdapter } from './engine/adapter.js'
import type { Device } from './engine/device.js'
import { findAdapters, listDevices, open } from './engine/node.js'
import { gpuOption } from './options.js'
import { UserError } from './train/error.js'

const row = (name: string, value: string): void => console.log(`  ${name.padEnd(40)}${value}`)

/** Throws where a kernel computes something else than the CPU. */
async function selfTest(device: Device, half: boolean): Promise<string> {
  const begin = performance.now()
  const { right, wrong } = await testKernels(device, half)
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  for (const line of wrong) console.log(`  wrong: ${line}`)
  if (wrong.length > 0) {
    throw new UserError(
      `${wrong.length} of ${wrong.length + right} kernels are wrong: this driver computes wrongly, ` +
        'update it or use another --gpu',
    )
  }
  return `${right} kernels correct, with tails and infinities (${seconds} s)`
}

const command = createCommand('doctor', 'Shows what WebGPU offers on this machine, and tests it.', {
  examples: ['', '--gpu nvidia'],
}).addOption(gpuOption())

await runCommand(async () => {
  const { gpu } = command.parse().opts<{ gpu?: string }>()
  console.log(`Node ${process.version} on ${process.platform} ${process.arch}`)
  console.log('devices')
  for (const line of describeDevices(await listDevices(), pciDevices())) console.log(line)
  for (const found of await findAdapters()) {
    const { title, rows } = describeAdapter(found)
    console.log(title)
    for (const [name, value] of rows) row(name, value)
  }
  const device = await open({ gpu })
  console.log(`using: ${showAdapter(device.adapter)}`)
  row('stores of f16', describeHalfStores(device.halfStores, device.traits))
  row('self-test', await selfTest(device, false))
  if (device.traits.half) row('self-test in half precision', await selfTest(device, true))
  if (device.adapter.software) {
    console.log('A GPU trains many times faster: where this machine has one, install its Vulkan driver.')
  }
  device.destroy()
})
