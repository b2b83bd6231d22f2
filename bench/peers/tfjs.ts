import * as tf from '@tensorflow/tfjs-core'
import '@tensorflow/tfjs-backend-webgpu'
import '@tensorflow/tfjs-core/dist/register_all_gradients.js'
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js'
import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu'
import type { HostTensor, Peer, PeerContext, PeerRun, ResidualTask, Task } from '../../build/bench/peer.js'

const eps = 1e-5
type Tensors = Record<string, tf.Tensor>
type Compute = (inputs: Tensors) => Tensors

function upload({ shape, data }: HostTensor): tf.Tensor {
  if (data instanceof Float32Array) return tf.tensor(data, [...shape], 'float32')
  return tf.tensor(Int32Array.from(data), [...shape], 'int32')
}

const normalized = (x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor): tf.Tensor => {
  const { mean, variance } = tf.moments(x, [0, 1, 2])
  return tf.batchNorm(
    x as tf.Tensor4D,
    mean as tf.Tensor1D,
    variance as tf.Tensor1D,
    bias as tf.Tensor1D,
    weight as tf.Tensor1D,
    eps,
  )
}

/** Over the last axis. */
function layerNormalized(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor, epsilon: number): tf.Tensor {
  const { mean, variance } = tf.moments(x, -1, true)
  return tf.add(tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, epsilon))), weight), bias)
}

/** q [N, Q, C], k and v [N, K, C]: the library has no operator for it. */
function attention(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, heads: number, scale: number): tf.Tensor {
  const [n = 1, , c = 1] = q.shape
  const byHead = (t: tf.Tensor) => tf.transpose(tf.reshape(t, [n, -1, heads, c / heads]), [0, 2, 1, 3])
  const weights = tf.softmax(tf.mul(tf.matMul(byHead(q), byHead(k), false, true), scale))
  return tf.reshape(tf.transpose(tf.matMul(weights, byHead(v)), [0, 2, 1, 3]), [n, -1, c])
}

/** Mean over the pixels whose label is a class. */
function crossEntropy(logits: tf.Tensor, target: tf.Tensor): tf.Tensor {
  const classes = logits.shape.at(-1) ?? 0
  // Labels beyond the classes become rows of zeros.
  const chosen = tf.oneHot(target as tf.Tensor1D, classes).toFloat()
  return tf
    .sum(tf.mul(tf.logSoftmax(logits), chosen))
    .neg()
    .div(tf.sum(chosen))
}

/** Outputs of a case from its differentiable inputs and the others; undefined for what the library lacks. */
function forwardOf({ op, attributes, results }: Task): ((t: Tensors) => tf.Tensor) | undefined {
  const { stride = 1, padding = 0, dilation = 1, kernel = 1, heads = 1, scale = 1 } = attributes
  const size = (results.out ?? []).slice(1, 3) as [number, number]
  switch (op) {
    case 'conv2d':
      return (t) => tf.conv2d(t.x as tf.Tensor4D, t.w as tf.Tensor4D, stride, padding, 'NHWC', dilation)
    case 'conv2dInputGrad': {
      if (dilation > 1) return undefined
      const attrs = { strides: stride, pad: padding, dataFormat: 'NHWC', inputShape: [...(results.out ?? [])] }
      return (t) => tf.engine().runKernel('Conv2DBackpropInput', { dy: need(t.dy), filter: need(t.w) }, attrs)
    }
    case 'conv2dWeightGrad': {
      if (dilation > 1) return undefined
      const attrs = { strides: stride, pad: padding, dataFormat: 'NHWC', filterShape: [...(results.out ?? [])] }
      return (t) => tf.engine().runKernel('Conv2DBackpropFilter', { x: need(t.x), dy: need(t.dy) }, attrs)
    }
    case 'convTranspose2d': {
      const outputs = [...(results.out ?? [])] as [number, number, number, number]
      return (t) => tf.conv2dTranspose(t.x as tf.Tensor4D, t.w as tf.Tensor4D, outputs, stride, padding)
    }
    case 'matmul':
    case 'batchedMatmul':
      return (t) => tf.matMul(need(t.a), need(t.b))
    case 'batchNormTraining':
      return (t) => normalized(need(t.x), need(t.weight), need(t.bias))
    case 'batchNormEvaluation':
      return (t) =>
        tf.batchNorm(
          t.x as tf.Tensor4D,
          t.runningMean as tf.Tensor1D,
          t.runningVar as tf.Tensor1D,
          t.bias as tf.Tensor1D,
          t.weight as tf.Tensor1D,
          eps,
        )
    case 'maxPool2d':
      return (t) => tf.maxPool(t.x as tf.Tensor4D, kernel, stride, padding)
    case 'globalAveragePool':
      return (t) => tf.mean(need(t.x), [1, 2], true)
    case 'resizeBilinear':
      return (t) => tf.image.resizeBilinear(t.x as tf.Tensor4D, size, true)
    case 'softmax':
      return (t) => tf.softmax(need(t.x))
    case 'layerNorm':
      return (t) => layerNormalized(need(t.x), need(t.weight), need(t.bias), eps)
    case 'gelu':
      return (t) => tf.mul(tf.mul(need(t.x), 0.5), tf.add(tf.erf(tf.mul(need(t.x), Math.SQRT1_2)), 1))
    case 'attention':
      return (t) => attention(need(t.q), need(t.k), need(t.v), heads, scale)
    case 'crossEntropyMean':
      return (t) => crossEntropy(need(t.logits), need(t.target))
    default:
      return undefined
  }
}

function need<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the task lacks an input')
  return value
}

const gradientPrefix = 'gradient of '

/** The forward pass, and the gradients of the inputs that the task wants them of. */
function computeOf(task: Task): Compute | undefined {
  const forward = forwardOf(task)
  if (!forward) return undefined
  const output = Object.keys(task.results).find((name) => !name.startsWith(gradientPrefix)) ?? 'out'
  if (task.pass === 'forward') return (t) => ({ [output]: forward(t) })
  const targets = Object.keys(task.results).flatMap((name) =>
    name.startsWith(gradientPrefix) ? name.slice(gradientPrefix.length) : [],
  )
  return ({ cotangent, ...t }) => {
    const f = (...values: tf.Tensor[]) =>
      forward({ ...t, ...Object.fromEntries(targets.map((name, i) => [name, need(values[i])])) })
    const { value, grads } = tf.valueAndGrads(f)(
      targets.map((name) => need(t[name])),
      need(cotangent),
    )
    const gradients = targets.map((name, i) => [gradientPrefix + name, need(grads[i])])
    return { [output]: value, ...Object.fromEntries(gradients) }
  }
}

export async function open({ wait }: PeerContext): Promise<Peer> {
  await wait(tf.setBackend('webgpu'))
  const backend = tf.backend() as WebGPUBackend
  /** The backend collects dispatches before it submits them. */
  const flush = () => {
    const inside = backend as unknown as { endComputePassEncoder(): void; commandEncoder: GPUCommandEncoder | null }
    inside.endComputePassEncoder()
    if (inside.commandEncoder) backend.submitQueue()
  }
  const idle = () => {
    flush()
    return backend.queue.onSubmittedWorkDone()
  }
  const read = async (tensor: tf.Tensor) => Float32Array.from(await wait(tensor.data()))

  async function operator(task: Task): Promise<PeerRun | undefined> {
    const compute = computeOf(task)
    if (!compute) return undefined
    const inputs = Object.fromEntries(Object.entries(task.inputs).map(([name, value]) => [name, upload(value)]))
    return {
      run: () => void tf.tidy(() => void compute(inputs)),
      idle,
      async results() {
        const tensors = tf.tidy(() => compute(inputs))
        const read_ = Object.entries(tensors).map(async ([name, tensor]) => [name, await read(tensor)] as const)
        const values = await Promise.all(read_)
        tf.dispose(tensors)
        return Object.fromEntries(values)
      },
      dispose: () => tf.dispose(inputs),
    }
  }

  async function residual(task: ResidualTask): Promise<PeerRun> {
    const { classes, learningRate, momentum, weightDecay, comparedStep, blocks } = task
    const variables = new Map(
      Object.entries(task.weights).map(([name, value]) => [name, tf.variable(upload(value), true, name)]),
    )
    const velocities = new Map([...variables].map(([name, value]) => [name, tf.variable(tf.zerosLike(value), false)]))
    const image = upload(task.image) as tf.Tensor4D
    const labels = upload(task.labels)
    const [, height = 1, width = 1] = task.image.shape
    const w = (name: string) => need(variables.get(name))
    const conv = (x: tf.Tensor, name: string, stride: number, pad: number) =>
      tf.conv2d(x as tf.Tensor4D, w(`${name}.weight`) as tf.Tensor4D, stride, pad)
    const norm = (x: tf.Tensor, name: string) => normalized(x, w(`${name}.weight`), w(`${name}.bias`))
    const loss = () => {
      let x: tf.Tensor = tf.relu(norm(conv(image, 'stem', 1, 1), 'stem_bn'))
      for (const { name, stride, shortcut } of blocks) {
        const inner = tf.relu(norm(conv(x, `${name}.conv1`, stride, 1), `${name}.bn1`))
        const main = norm(conv(inner, `${name}.conv2`, 1, 1), `${name}.bn2`)
        const skip = shortcut ? norm(conv(x, `${name}.shortcut`, stride, 0), `${name}.shortcut_bn`) : x
        x = tf.relu(tf.add(main, skip))
      }
      const logits = tf.image.resizeBilinear(conv(x, 'head', 1, 0) as tf.Tensor4D, [height, width], true)
      return crossEntropy(tf.reshape(logits, [-1, classes]), tf.reshape(labels, [-1])) as tf.Scalar
    }
    const step = (): tf.Scalar =>
      tf.tidy(() => {
        const { value, grads } = tf.variableGrads(loss, [...variables.values()])
        for (const [name, parameter] of variables) {
          const velocity = need(velocities.get(name))
          const gradient = tf.add(need(grads[name]), tf.mul(parameter, weightDecay))
          velocity.assign(tf.add(tf.mul(velocity, momentum), gradient))
          parameter.assign(tf.sub(parameter, tf.mul(velocity, learningRate)))
        }
        return value
      })
    return {
      run: () => step().dispose(),
      idle,
      async results() {
        for (let k = 1; k < comparedStep; k++) step().dispose()
        const value = step()
        const data = await read(value)
        value.dispose()
        return { loss: data }
      },
      dispose() {
        tf.dispose([image, labels])
        for (const variable of [...variables.values(), ...velocities.values()]) variable.dispose()
      },
    }
  }

  return { name: `tfjs ${tf.version_core}`, operator, residual }
}
