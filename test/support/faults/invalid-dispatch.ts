// From the fifth step on, the kernel of the stem's pooling is given more workgroups than WebGPU allows.
import { during } from './count-steps.js'

during(4, () => {
  const { dispatchWorkgroups, setPipeline } = GPUComputePassEncoder.prototype
  let label = ''
  GPUComputePassEncoder.prototype.setPipeline = function (pipeline) {
    label = pipeline.label
    setPipeline.call(this, pipeline)
  }
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function (x, y, z) {
    dispatchWorkgroups.call(this, label === 'maxPool2d' ? 65536 : x, y, z)
  }
})
