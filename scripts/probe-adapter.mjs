// Looks for a WebGPU adapter that gives a device, and prints its name. Exit code: 0 found, 3 none, 4 Dawn's binary
// does not load. Dawn may also crash inside a broken driver: whoever calls this takes any other code as "none".
let webgpu
try {
  webgpu = await import('webgpu')
} catch (error) {
  console.error(`Dawn's binary does not load: ${error.message}`)
  process.exit(4)
}
const gpu = webgpu.create([])
const adapter = await gpu.requestAdapter()
if (!adapter) {
  console.error('no WebGPU adapter')
  process.exit(3)
}
try {
  const device = await adapter.requestDevice()
  device.destroy()
} catch (error) {
  console.error(`the adapter ${adapter.info.device} gives no device: ${error.message}`)
  process.exit(3)
}
const { device, description } = adapter.info
console.log([device, description].filter((part) => part).join(', '))
process.exit(0)
