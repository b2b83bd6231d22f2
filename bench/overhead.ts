import { create, globals } from 'webgpu'
import { summarizeAdapter } from '#dist/engine/adapter.js'
import { openDevice } from '#dist/engine/open-device.js'
import type { ModelChoice } from '#dist/models/index.js'
import { measureStep } from './step.js'
import type { Timing } from './timing.js'

export interface OverheadMeasurement extends Timing {
  readonly method: string
  readonly dispatches: number
}

/** The methods whose step is replayed. */
export const overheadMethods: readonly string[] = ['supervised', 'prevmatch']

/** The layers of DeepLabV3+ with a ResNet-50, a quarter as wide: the null device has 512 MiB. */
const narrow: ModelChoice = {
  nclass: 21,
  backbone: 'resnet50',
  model: { stem: [16, 16, 32], planes: [16, 32, 64, 128], reduce_channels: 12, aspp_channels: 64, fuse_channels: 64 },
}

/** Dawn's objects do not keep it alive. */
let instance: GPU | undefined

/**
 * Milliseconds that JavaScript and Dawn need to replay one training step, measured on Dawn's null backend, whose device
 * does nothing. What a driver does with the commands on the calling thread is not part of it.
 */
export async function measureOverhead(method: string): Promise<OverheadMeasurement> {
  Object.assign(globalThis, globals)
  instance ??= create(['backend=null'])
  const adapter = await instance.requestAdapter()
  if (!adapter) throw new Error('Dawn offers no null adapter')
  const device = await openDevice(adapter, summarizeAdapter(adapter))
  try {
    const { milliseconds, spread, dispatches } = await measureStep(
      device,
      narrow,
      method,
      { crop: 65, batch: 2 },
      { steps: 30 },
    )
    return { method, milliseconds, spread, dispatches }
  } finally {
    device.destroy()
  }
}
