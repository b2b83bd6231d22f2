import type { Device } from '#dist/engine/device.js'
import { read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile, type Program } from '#dist/engine/program.js'
import { elements, type Shape, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { crossEntropyMean } from '#dist/kernels/loss.js'
import { add, relu } from '#dist/kernels/pointwise.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { createState, momentum, optimizerOf, updateParameters, weightDecay } from '#dist/train/trainer/optimizer.js'
import { Random } from '../cases/case.js'
import type { Peaks } from './peaks.js'
import type { HostTensor, ResidualTask } from './peer.js'
import { type Timing, timesOf, timingOf } from './timing.js'

/**
 * A small residual network for segmentation: a stem, three stages of two basic blocks with 16, 32 and 64 channels, the
 * last two at half the size of the one before, a 1x1 convolution, and the logits resized to the image. One step of SGD
 * on four images of 65x65 has about 2.75 GFLOP.
 */
const [batch, size, classes] = [4, 65, 5]
export const residualName = `${size}x${size}, batch ${batch}`
const learningRate = 0.01
const widths = [16, 32, 64]

const blocks = widths.flatMap((width, stage) =>
  [0, 1].map((index) => {
    const first = stage > 0 && index === 0
    return {
      name: `layer${stage + 1}.${index}`,
      from: first ? width / 2 : width,
      width,
      stride: first ? 2 : 1,
      shortcut: first,
    }
  }),
)

function weightShapes(): Map<string, Shape> {
  const shapes = new Map<string, Shape>()
  const conv = (name: string, kernel: number, from: number, to: number) =>
    shapes.set(`${name}.weight`, [kernel, kernel, from, to])
  const norm = (name: string, width: number) => shapes.set(`${name}.weight`, [width]).set(`${name}.bias`, [width])
  const [first = 1] = widths
  conv('stem', 3, 3, first)
  norm('stem_bn', first)
  for (const { name, from, width, shortcut } of blocks) {
    conv(`${name}.conv1`, 3, from, width)
    norm(`${name}.bn1`, width)
    conv(`${name}.conv2`, 3, width, width)
    norm(`${name}.bn2`, width)
    if (!shortcut) continue
    conv(`${name}.shortcut`, 1, from, width)
    norm(`${name}.shortcut_bn`, width)
  }
  conv('head', 1, widths.at(-1) ?? 1, classes)
  return shapes
}

/** Data and initial weights, the same for everyone. */
export function residualTask(): ResidualTask {
  const random = new Random('residual step')
  const floats = (shape: Shape, draw: () => number): HostTensor => ({
    shape,
    data: Float32Array.from({ length: elements(shape) }, draw),
  })
  const weights = [...weightShapes()].map(([name, shape]): [string, HostTensor] => {
    if (shape.length === 1) return [name, floats(shape, () => (name.endsWith('weight') ? 1 : 0))]
    const [kernel = 1, , from = 1] = shape
    const deviation = Math.sqrt(2 / (kernel * kernel * from))
    return [name, floats(shape, () => deviation * random.normal())]
  })
  const places = batch * size * size
  return {
    classes,
    learningRate,
    momentum,
    weightDecay,
    comparedStep: 3,
    blocks,
    image: floats([batch, size, size, 3], () => random.normal()),
    labels: { shape: [batch, size, size], data: Uint8Array.from({ length: places }, () => random.integer(classes)) },
    weights: Object.fromEntries(weights),
  }
}

/** Multiplications and additions of the convolutions in one step; the image needs no gradient. */
export function residualFlops(): number {
  const half = (extent: number, stride: number) => Math.floor((extent - 1) / stride) + 1
  let extent = size
  const [first = 1, , last = 1] = widths
  const stem = 9 * 3 * first * size * size
  let rest = 0
  for (const { from, width, stride, shortcut } of blocks) {
    extent = half(extent, stride)
    rest += extent * extent * width * (9 * from + 9 * width + (shortcut ? from : 0))
  }
  rest += extent * extent * last * classes
  return 2 * batch * (2 * stem + 3 * rest)
}

function lossOf(
  task: ResidualTask,
  image: Tensor,
  labels: Tensor,
  w: (name: string) => Tensor,
  statistics: Statistics,
) {
  const conv = (x: Tensor, name: string, stride: number, padding: number) =>
    conv2d(x, w(`${name}.weight`), { stride, padding })
  const norm = (x: Tensor, name: string) =>
    batchNormTraining(x, { weight: w(`${name}.weight`), bias: w(`${name}.bias`), ...statistics(x.shape.at(-1) ?? 1) }).y
  let x = relu(norm(conv(image, 'stem', 1, 1), 'stem_bn'))
  for (const { name, stride, shortcut } of task.blocks) {
    const inner = relu(norm(conv(x, `${name}.conv1`, stride, 1), `${name}.bn1`))
    const main = norm(conv(inner, `${name}.conv2`, 1, 1), `${name}.bn2`)
    const skip = shortcut ? norm(conv(x, `${name}.shortcut`, stride, 0), `${name}.shortcut_bn`) : x
    x = relu(add(main, skip))
  }
  return crossEntropyMean(resizeBilinear(conv(x, 'head', 1, 0), [size, size]), labels)
}

type Statistics = (channels: number) => { runningMean: Tensor; runningVar: Tensor }

export interface ResidualStep {
  readonly dispatches: number
  /** Submits one step. */
  run(): void
  idle(): Promise<void>
  /** The loss of the step that the task says. */
  results(): Promise<Record<string, ArrayLike<number>>>
  destroy(): void
}

/** The training step, ready to be run over and over. */
export async function openResidual(device: Device, task: ResidualTask): Promise<ResidualStep> {
  const store = new Store(device, 'residual')
  const constants = new Store(device, 'residual data')
  const declare = (into: Store, name: string, { shape, data }: HostTensor): Variable =>
    into.declare(name, spec(shape, data instanceof Uint8Array ? 'u8' : 'f32'), data)
  for (const [name, tensor] of Object.entries(task.weights)) declare(store, name, tensor)
  const groups = [{ name: 'head', parameters: store.all() }] as const
  const optimizer = optimizerOf({})
  const state = createState(optimizer, groups)
  const image = declare(constants, 'image', task.image)
  const labels = declare(constants, 'labels', task.labels)
  const rate = constants.declare('rate', spec([]), Float32Array.of(task.learningRate))
  // Running statistics are not part of the comparison: these only give the operator what it asks for.
  const statistics: Statistics = (channels) => {
    const name = `statistics of ${channels}`
    const variable = constants.has(name) ? constants.get(name) : constants.declare(name, spec([channels]))
    return { runningMean: read(variable), runningVar: read(variable) }
  }
  const program: Program<Record<string, never>, { loss: Tensor }> = await compile(
    device,
    {},
    () => {
      const loss = lossOf(task, read(image), read(labels), (name) => read(store.get(name)), statistics)
      const learning = read(rate)
      const rates = { backbone: learning, head: learning }
      updateParameters(loss, [{ groups, state }], { optimizer, rates, inputs: {} })
      return { loss }
    },
    { label: 'residual step' },
  )
  return {
    dispatches: program.memory.dispatches,
    run: () => program.run({}),
    idle: () => device.idle(),
    async results() {
      for (let k = 0; k < task.comparedStep; k++) program.run({})
      return { loss: await program.read('loss') }
    },
    destroy() {
      program.destroy()
      for (const each of [store, ...state, constants]) each.destroy()
    },
  }
}

export interface ResidualMeasurement extends Timing {
  readonly shape: string
  readonly dispatches: number
  readonly gflops: number
  /** Of the adapter's multiply-adds. */
  readonly share: number
}

/** Times the training step. */
export async function measureResidual(device: Device, peaks: Peaks): Promise<ResidualMeasurement> {
  const step = await openResidual(device, residualTask())
  try {
    const timing = timingOf(await timesOf(device, step.run))
    const gflops = residualFlops() / timing.milliseconds / 1e6
    return { shape: residualName, dispatches: step.dispatches, ...timing, gflops, share: gflops / peaks.gflops }
  } finally {
    step.destroy()
  }
}
