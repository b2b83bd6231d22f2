// ?at=N: the process kills itself when the N-th image of its validations is about to be evaluated; ?at=N&then=memory: there
// is no memory for it.
import { OutOfMemoryError } from '#dist/engine/device.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'

const { searchParams } = new URL(import.meta.url)
let images = 0
const { add } = Evaluator.prototype
Evaluator.prototype.add = async function (...args) {
  if (++images === Number(searchParams.get('at'))) {
    if (searchParams.get('then') === 'memory') throw new OutOfMemoryError('out of GPU memory: a test')
    process.kill(process.pid, 'SIGKILL')
  }
  return add.apply(this, args)
}
