// Trains a two-layer convolutional net to outline squares. Run: node build/examples/embed.js
import { assign, compile, conv2d, crossEntropyMean, grad, read, relu, Store, sgd, spec } from 'atrous'
import { open } from 'atrous/node'

const size = 16
const batch = 8

/** Squares on a noisy ground: pictures [N, H, W, 1] and labels [N, H, W], 1 on the outline. */
function squares(random: () => number): { x: Float32Array; target: Uint32Array } {
  const x = Float32Array.from({ length: batch * size * size }, () => random() * 0.2)
  const target = new Uint32Array(x.length)
  for (let n = 0; n < batch; n++) {
    const [top, left] = [1 + Math.floor(random() * 6), 1 + Math.floor(random() * 6)]
    const side = 4 + Math.floor(random() * 5)
    for (let i = top; i < top + side; i++) {
      for (let j = left; j < left + side; j++) {
        const at = (n * size + i) * size + j
        x[at] = 0.8 + random() * 0.2
        target[at] = Number(i === top || j === left || i === top + side - 1 || j === left + side - 1)
      }
    }
  }
  return { x, target }
}

/** A small generator, so that every run is the same. */
let state = 1
const random = () => {
  state = (state * 16807) % 2147483647
  return state / 2147483647
}
const uniform = (count: number, bound: number) => Float32Array.from({ length: count }, () => (random() * 2 - 1) * bound)

const device = await open()
const store = new Store(device, 'net')
const weights = [
  store.declare('conv1', spec([3, 3, 1, 16]), uniform(3 * 3 * 16, 0.5)),
  store.declare('conv2', spec([3, 3, 16, 2]), uniform(3 * 3 * 16 * 2, 0.15)),
]
const velocities = weights.map(({ name, spec }) => store.declare(`velocity/${name}`, spec))

const inputs = { x: spec([batch, size, size, 1]), target: spec([batch, size, size], 'u32'), learningRate: spec([]) }
const step = await compile(device, inputs, ({ x, target, learningRate }) => {
  const [w1, w2] = weights.map(read)
  if (!w1 || !w2) throw new Error('two layers were declared')
  const logits = conv2d(relu(conv2d(x, w1, { padding: 1 })), w2, { padding: 1 })
  const loss = crossEntropyMean(logits, target)
  for (const [i, gradient] of grad(loss, [w1, w2]).entries()) {
    const [weight, momentum] = [weights[i], velocities[i]]
    if (!weight || !momentum) throw new Error('a gradient for each layer')
    const next = sgd({ parameter: read(weight), velocity: read(momentum), gradient, learningRate })
    assign(weight, next.parameter)
    assign(momentum, next.velocity)
  }
  return { loss }
})

for (let iteration = 0; iteration <= 200; iteration++) {
  step.run({ ...squares(random), learningRate: Float32Array.of(0.1) })
  if (iteration % 50 === 0) console.log(`iteration ${iteration}: loss ${(await step.read('loss'))[0]?.toFixed(4)}`)
}
device.destroy()
