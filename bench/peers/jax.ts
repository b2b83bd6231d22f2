import * as jax from '@jax-js/jax'
import type { HostTensor, Peer, PeerContext, PeerRun, ResidualTask, Task } from '../../build/bench/peer.js'
import { permuted } from './layout.js'

const { lax, nn, numpy: np } = jax
type Arrays = Record<string, jax.Array>

const eps = 1e-5
const version = '0.1.25'

function need<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the task lacks an input')
  return value
}

/** The library's convolutions take [N, C, H, W] and [O, C, KH, KW]. */
type Layout = 'map' | 'weight' | 'plain'
const toTheirs: Record<Layout, readonly number[] | undefined> = {
  map: [0, 3, 1, 2],
  weight: [3, 2, 0, 1],
  plain: undefined,
}
const toOurs: Record<Layout, readonly number[] | undefined> = {
  map: [0, 2, 3, 1],
  weight: [2, 3, 1, 0],
  plain: undefined,
}

function layoutOf(task: Task, name: string): Layout {
  const bare = name.replace('gradient of ', '')
  const shape = task.inputs[bare]?.shape ?? task.results[bare] ?? []
  if (shape.length !== 4) return 'plain'
  return bare === 'w' || (bare === 'out' && task.op === 'conv2dWeightGrad') ? 'weight' : 'map'
}

function upload({ shape, data }: HostTensor, layout: Layout): jax.Array {
  const order = toTheirs[layout]
  if (!(data instanceof Float32Array)) return np.array(Int32Array.from(data), { shape: [...shape], dtype: np.int32 })
  if (!order) return np.array(Float32Array.from(data), { shape: [...shape] })
  return np.array(permuted(data, shape, order), { shape: order.map((axis) => shape[axis] ?? 1) })
}

const convolved = (x: jax.Array, w: jax.Array, stride: number, padding: number, dilation: number): jax.Array =>
  lax.convGeneralDilated(
    x,
    w,
    [stride, stride],
    [
      [padding, padding],
      [padding, padding],
    ],
    {
      rhsDilation: [dilation, dilation],
    },
  )

/** x [N, C, H, W], weight and bias [C, 1, 1] after reshaping. */
function normalized(x: jax.Array, weight: jax.Array, bias: jax.Array): jax.Array {
  const channels = weight.shape[0] ?? 1
  const mean = np.mean(x.ref, [0, 2, 3], { keepdims: true })
  const centered = x.sub(mean)
  const variance = np.mean(centered.ref.mul(centered.ref), [0, 2, 3], { keepdims: true })
  const scale = np.reciprocal(np.sqrt(variance.add(eps)))
  return centered.mul(scale.mul(weight.reshape([channels, 1, 1]))).add(bias.reshape([channels, 1, 1]))
}

/** logits [N, K, H, W], target [N, H, W]: mean over the pixels whose label is a class. */
function crossEntropy(logits: jax.Array, target: jax.Array): jax.Array {
  const [n = 1, classes = 1, height = 1, width = 1] = logits.shape
  const all = np.arange(classes).reshape([classes, 1, 1])
  const chosen = np.equal(target.reshape([n, 1, height, width]), all).astype(np.float32)
  const total = np.sum(nn.logSoftmax(logits, 1).mul(chosen.ref))
  return total.mul(-1).div(np.sum(chosen))
}

/** [to, from]: rows of weights of linear interpolation with aligned corners. */
function interpolation(from: number, to: number): jax.Array {
  const data = new Float32Array(to * from)
  for (let row = 0; row < to; row++) {
    const at = (row * (from - 1)) / (to - 1)
    const low = Math.min(Math.floor(at), from - 2)
    data[row * from + low] = 1 - (at - low)
    data[row * from + low + 1] = at - low
  }
  return np.array(data, { shape: [to, from] })
}

function forwardOf({ op, attributes, inputs }: Task): ((t: Arrays) => jax.Array) | undefined {
  const { stride = 1, padding = 0, dilation = 1, kernel = 1, heads = 1, scale = 1 } = attributes
  switch (op) {
    case 'conv2d':
      return (t) => convolved(need(t.x), need(t.w), stride, padding, dilation)
    case 'matmul':
    case 'batchedMatmul':
      return (t) => np.matmul(need(t.a), need(t.b))
    case 'batchNormTraining':
      return (t) => normalized(need(t.x), need(t.weight), need(t.bias))
    case 'batchNormEvaluation':
      return (t) => {
        const channels = need(t.weight).shape[0] ?? 1
        const column = (value: jax.Array) => value.reshape([channels, 1, 1])
        const scale = need(t.weight).div(np.sqrt(need(t.runningVar).add(eps)))
        return need(t.x)
          .sub(column(need(t.runningMean)))
          .mul(column(scale))
          .add(column(need(t.bias)))
      }
    case 'maxPool2d': {
      const [, height = 1, width = 1] = inputs.x?.shape ?? []
      // The library pads with zeros only: what is added there makes them lose.
      const border = new Float32Array((height + 2 * padding) * (width + 2 * padding)).fill(-1e30)
      for (let y = 0; y < height; y++) {
        const start = (y + padding) * (width + 2 * padding) + padding
        border.fill(0, start, start + width)
      }
      const shape = [height + 2 * padding, width + 2 * padding]
      return (t) => {
        const padded = np.pad(need(t.x), [
          [0, 0],
          [0, 0],
          [padding, padding],
          [padding, padding],
        ])
        const lowered = padded.add(np.array(border, { shape }))
        return lax.reduceWindow(lowered, (window) => np.max(window), [kernel, kernel], [stride, stride])
      }
    }
    case 'globalAveragePool':
      return (t) => np.mean(need(t.x), [2, 3], { keepdims: true })
    case 'softmax':
      return (t) => nn.softmax(need(t.x), 1)
    case 'layerNorm':
      return (t) => nn.standardize(need(t.x)).mul(need(t.weight)).add(need(t.bias))
    case 'gelu':
      return (t) => nn.gelu(need(t.x), { approximate: false })
    case 'attention':
      return (t) => {
        const [n = 1, queries = 1, c = 1] = need(t.q).shape
        const byHead = (x: jax.Array) => x.reshape([n, -1, heads, c / heads])
        const y = nn.dotProductAttention(byHead(need(t.q)), byHead(need(t.k)), byHead(need(t.v)), { scale })
        return y.reshape([n, queries, c])
      }
    case 'crossEntropyMean':
      return (t) => crossEntropy(need(t.logits), need(t.target))
    default:
      return undefined
  }
}

/** Gradients of a product for one of its factors, as reverse-mode differentiation has them. */
function gradientOf({ op, attributes, results }: Task): ((t: Arrays) => jax.Array) | undefined {
  const { stride = 1, padding = 0, dilation = 1 } = attributes
  const shape = results.out ?? []
  if (op === 'conv2dInputGrad' || op === 'convTranspose2d') {
    const like = need(toTheirs.map).map((axis) => shape[axis] ?? 1)
    return (t) => {
      const [y, back] = jax.vjp(
        (x: jax.Array) => convolved(x, need(t.w).ref, stride, padding, dilation),
        [np.zeros(like)],
      )
      y.dispose()
      const [gradient] = back(need(t.dy ?? t.x)) as [jax.Array]
      return gradient
    }
  }
  if (op === 'conv2dWeightGrad') {
    const like = need(toTheirs.weight).map((axis) => shape[axis] ?? 1)
    return (t) => {
      const [y, back] = jax.vjp(
        (w: jax.Array) => convolved(need(t.x).ref, w, stride, padding, dilation),
        [np.zeros(like)],
      )
      y.dispose()
      const [gradient] = back(need(t.dy)) as [jax.Array]
      return gradient
    }
  }
  return undefined
}

const gradientPrefix = 'gradient of '

function computeOf(task: Task): ((t: Arrays) => Arrays) | undefined {
  const product = gradientOf(task)
  if (product) return (t) => ({ out: product(t) })
  const forward = forwardOf(task)
  if (!forward) return undefined
  const output = Object.keys(task.results).find((name) => !name.startsWith(gradientPrefix)) ?? 'out'
  if (task.pass === 'forward') return (t) => ({ [output]: forward(t) })
  const targets = Object.keys(task.results).flatMap((name) =>
    name.startsWith(gradientPrefix) ? name.slice(gradientPrefix.length) : [],
  )
  return ({ cotangent, ...t }) => {
    const f = (...values: jax.Array[]) =>
      forward({ ...t, ...Object.fromEntries(targets.map((name, i) => [name, need(values[i])])) })
    const [value, back] = jax.vjp(
      f,
      targets.map((name) => need(t[name])),
    )
    const gradients = back(need(cotangent)) as jax.Array[]
    const named = targets.map((name, i) => [gradientPrefix + name, need(gradients[i])])
    return { [output]: value, ...Object.fromEntries(named) }
  }
}

const held = (arrays: Arrays): Arrays =>
  Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, array.ref]))

export async function open({ wait }: PeerContext): Promise<Peer> {
  await wait(jax.init('webgpu'))
  jax.defaultDevice('webgpu')

  /** Runs a jitted function over and over. Work whose arrays are dropped before they are waited for is never done. */
  function repeat(step: () => Arrays, dispose: () => void, results: PeerRun['results']): PeerRun {
    let pending: Arrays[] = []
    return {
      run: () => void pending.push(step()),
      async idle() {
        await jax.blockUntilReady(pending)
        for (const array of pending.flatMap((arrays) => Object.values(arrays))) array.dispose()
        pending = []
      },
      results,
      dispose,
    }
  }

  async function operator(task: Task): Promise<PeerRun | undefined> {
    const compute = computeOf(task)
    if (!compute) return undefined
    const inputs = Object.fromEntries(
      Object.entries(task.inputs).map(([name, value]) => {
        const like = name === 'cotangent' ? layoutOf(task, 'y' in task.results ? 'y' : 'out') : layoutOf(task, name)
        return [name, upload(value, like)]
      }),
    )
    const compiled = jax.jit(compute)
    const step = () => compiled(held(inputs)) as Arrays
    const dispose = () => {
      for (const array of Object.values(inputs)) array.dispose()
      compiled.dispose()
    }
    return repeat(step, dispose, async () => {
      const values: Record<string, Float32Array> = {}
      for (const [name, array] of Object.entries(step())) {
        const { shape } = array
        const order = toOurs[layoutOf(task, name)]
        const data = (await wait(array.data())) as Float32Array
        values[name] = order ? permuted(data, shape, order) : data
      }
      return values
    })
  }

  async function residual(task: ResidualTask): Promise<PeerRun> {
    const { learningRate, momentum, weightDecay, comparedStep, blocks } = task
    const image = upload(task.image, 'map')
    const labels = upload(task.labels, 'plain')
    const [, height = 1, width = 1] = task.image.shape
    const layout = (shape: readonly number[]): Layout => (shape.length === 4 ? 'weight' : 'plain')
    const names = Object.keys(task.weights)
    let parameters: Arrays = Object.fromEntries(
      names.map((name) => [name, upload(need(task.weights[name]), layout(need(task.weights[name]).shape))]),
    )
    let velocities: Arrays = Object.fromEntries(names.map((name) => [name, np.zeros(need(parameters[name]).shape)]))
    const loss = (p: Arrays, x0: jax.Array, target: jax.Array): jax.Array => {
      const w = (name: string) => need(p[name]).ref
      const conv = (x: jax.Array, name: string, stride: number, padding: number) =>
        convolved(x, w(`${name}.weight`), stride, padding, 1)
      const norm = (x: jax.Array, name: string) => normalized(x, w(`${name}.weight`), w(`${name}.bias`))
      let x = nn.relu(norm(conv(x0, 'stem', 1, 1), 'stem_bn'))
      for (const { name, stride, shortcut } of blocks) {
        const inner = nn.relu(norm(conv(x.ref, `${name}.conv1`, stride, 1), `${name}.bn1`))
        const main = norm(conv(inner, `${name}.conv2`, 1, 1), `${name}.bn2`)
        const skip = shortcut ? norm(conv(x, `${name}.shortcut`, stride, 0), `${name}.shortcut_bn`) : x
        x = nn.relu(main.add(skip))
      }
      const small = conv(x, 'head', 1, 0)
      const [, , h = 1, v = 1] = small.shape
      // There is no resize; linear interpolation is a product from either side.
      const wide = np.matmul(small, np.transpose(interpolation(v, width)))
      const tall = np.matmul(np.swapaxes(wide, 2, 3), np.transpose(interpolation(h, height)))
      const logits = np.swapaxes(tall, 2, 3)
      for (const array of Object.values(p)) array.dispose()
      return crossEntropy(logits, target)
    }
    const compiled = jax.jit((p: Arrays, velocity: Arrays, x: jax.Array, target: jax.Array) => {
      const [value, gradients] = jax.valueAndGrad(loss)(held(p), x, target) as [jax.Array, Arrays]
      const newVelocity: Arrays = {}
      const newParameters: Arrays = {}
      for (const name of names) {
        const gradient = need(gradients[name]).add(need(p[name]).ref.mul(weightDecay))
        const moved = need(velocity[name]).mul(momentum).add(gradient)
        newVelocity[name] = moved.ref
        newParameters[name] = need(p[name]).sub(moved.mul(learningRate))
      }
      return [value, newParameters, newVelocity] as [jax.Array, Arrays, Arrays]
    })
    const step = (): Arrays => {
      const [value, p, v] = compiled(parameters, velocities, image.ref, labels.ref) as [jax.Array, Arrays, Arrays]
      parameters = p
      velocities = v
      return { loss: value }
    }
    const dispose = () => {
      for (const array of [image, labels, ...Object.values(parameters), ...Object.values(velocities)]) array.dispose()
      compiled.dispose()
    }
    const run = repeat(step, dispose, async () => {
      for (let k = 1; k < comparedStep; k++) step().loss?.dispose()
      const value = need(step().loss)
      return { loss: Float32Array.from((await wait(value.data())) as Float32Array) }
    })
    const idle = async () => {
      await run.idle()
      // The last update is waited for as well as the loss.
      await jax.blockUntilReady([parameters, velocities])
    }
    return { ...run, idle }
  }

  return { name: `jax-js ${version}`, operator, residual }
}
