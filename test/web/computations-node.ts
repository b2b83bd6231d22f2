// node computations-node.js NAME…: prints the hash of each computation, on the first adapter that Node finds.
import { open } from '#dist/engine/node.js'
import { computations, hashOf } from './computations.js'

const device = await open()
console.error(device.adapter.device)
for (const name of process.argv.slice(2))
  console.log(hashOf(await computations[name as keyof typeof computations](device)))
device.destroy()
