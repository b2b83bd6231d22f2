// The GPU device goes away with the second image of an evaluation.
import { Device } from '#dist/engine/device.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'

let images = 0
const { add } = Evaluator.prototype
Evaluator.prototype.add = function (...args) {
  images++
  return add.apply(this, args)
}
const { wait } = Device.prototype
Device.prototype.wait = function (promise) {
  if (images === 2) this.gpu.destroy()
  return wait.call(this, promise) as never
}
