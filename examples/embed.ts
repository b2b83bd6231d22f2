// Trains a two-layer convolutional net to find peaks in noise. Run: node build/examples/embed.js
import { assign, compile, conv2d, crossEntropyMean, grad, read, relu, Store, sgd, spec } from 'atrous'
import { open } from 'atrous/node'

const [batch, size, hidden, classes] = [8, 16, 16, 2]

let state = 1
/** Uniform in [0, 1), the same in every run. */
const random = () => {
  state = (state * 16807) % 2147483647
  return state / 2147483647
}
const noise = (count: number, bound: number) => Float32Array.from({ length: count }, () => (random() - 0.5) * 2 * bound)

/** Pictures of noise [N, H, W, 1], and labels [N, H, W]: 1 where a pixel outshines both its neighbours. */
function peaks() {
  const x = noise(batch * size * size, 1)
  const at = (i: number) => x[i] ?? 0
  return { x, target: Uint32Array.from(x, (value, i) => Number(value > at(i - 1) && value > at(i + 1))) }
}

const device = await open()
const store = new Store(device, 'net')
const declare = (name: string, shape: number[], bound: number) => ({
  weight: store.declare(
    name,
    spec(shape),
    noise(
      shape.reduce((a, b) => a * b),
      bound,
    ),
  ),
  momentumBuffer: store.declare(`${name} momentumBuffer`, spec(shape)),
})
const first = declare('first', [3, 3, 1, hidden], 0.5)
const second = declare('second', [3, 3, hidden, classes], 0.15)

const inputs = { x: spec([batch, size, size, 1]), target: spec([batch, size, size], 'u32'), learningRate: spec([]) }
const step = await compile(device, inputs, ({ x, target, learningRate }) => {
  const features = relu(conv2d(x, read(first.weight), { padding: 1 }))
  const loss = crossEntropyMean(conv2d(features, read(second.weight), { padding: 1 }), target)
  for (const { weight, momentumBuffer } of [first, second]) {
    const [gradient = loss] = grad(loss, [read(weight)])
    const next = sgd({ parameter: read(weight), momentumBuffer: read(momentumBuffer), gradient, learningRate })
    assign(weight, next.parameter)
    assign(momentumBuffer, next.momentumBuffer)
  }
  return { loss }
})
console.log(`${step.memory.dispatches} dispatches per step`)

for (let iteration = 0; iteration <= 200; iteration++) {
  step.run({ ...peaks(), learningRate: Float32Array.of(0.1) })
  if (iteration % 50 === 0) console.log(`iteration ${iteration}: loss ${(await step.read('loss'))[0]?.toFixed(4)}`)
}
device.destroy()
