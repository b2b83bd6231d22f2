import type { InferenceSession, Tensor } from 'onnxruntime-common'
import * as ort from 'onnxruntime-web/webgpu'
import type { HostTensor, Peer, PeerContext, PeerRun, Task } from '../../build/bench/peer.js'
import { permuted } from './layout.js'

type Builder = InstanceType<PeerContext['GraphBuilder']>

function need<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the task lacks an input')
  return value
}

const reordered = ({ shape, data }: HostTensor, order: readonly number[]): HostTensor => ({
  shape: order.map((axis) => shape[axis] ?? 1),
  data: permuted(data, shape, order),
})

/** [N, H, W, C] → [N, C, H, W]. */
const channelsFirst = (map: HostTensor) => reordered(map, [0, 3, 1, 2])

/** [KH, KW, C, O] → [O, C, KH, KW]. */
const outputsFirst = (weight: HostTensor) => reordered(weight, [3, 2, 0, 1])

/** The one input of the model, and how the operator appends itself to a model that has it as `x`. */
interface Plan {
  readonly input: HostTensor
  readonly append: (graph: Builder) => void
  /** The results are maps with channels first. */
  readonly maps: boolean
}

function planOf({ op, pass, attributes, inputs, results }: Task): Plan | undefined {
  if (pass !== 'forward') return undefined
  const { stride = 1, padding = 0, dilation = 1, kernel = 1, heads = 1, scale = 1 } = attributes
  const window = (w: HostTensor) => ({
    kernel_shape: w.shape.slice(0, 2),
    strides: [stride, stride],
    dilations: [dilation, dilation],
    pads: [padding, padding, padding, padding],
  })
  const constant = (graph: Builder, name: string, { shape, data }: HostTensor) =>
    graph.constant(name, shape, Float32Array.from(data))
  const node = (graph: Builder, kind: string, others: string[], attrs = {}) =>
    graph.node('y', kind, ['x', ...others], attrs)
  switch (op) {
    case 'conv2d': {
      const w = need(inputs.w)
      return {
        input: channelsFirst(need(inputs.x)),
        maps: true,
        append: (graph) => node(graph, 'Conv', [constant(graph, 'w', outputsFirst(w))], window(w)),
      }
    }
    case 'conv2dInputGrad': {
      const w = need(inputs.w)
      const dy = need(inputs.dy)
      const out = need(results.out)
      const extra = [1, 2].map((axis) => {
        const span = dilation * ((w.shape[axis - 1] ?? 1) - 1) + 1
        return (out[axis] ?? 1) - (((dy.shape[axis] ?? 1) - 1) * stride - 2 * padding + span)
      })
      return {
        input: channelsFirst(dy),
        maps: true,
        append: (graph) =>
          node(graph, 'ConvTranspose', [constant(graph, 'w', outputsFirst(w))], {
            ...window(w),
            output_padding: extra,
          }),
      }
    }
    case 'convTranspose2d':
      return {
        input: channelsFirst(need(inputs.x)),
        maps: true,
        append: (graph) => {
          const w = need(inputs.w)
          node(graph, 'ConvTranspose', [constant(graph, 'w', outputsFirst(w))], window(w))
        },
      }
    case 'matmul':
    case 'batchedMatmul':
      return {
        input: need(inputs.a),
        maps: false,
        append: (graph) => node(graph, 'MatMul', [constant(graph, 'b', need(inputs.b))]),
      }
    case 'batchNormEvaluation':
      return {
        input: channelsFirst(need(inputs.x)),
        maps: true,
        append: (graph) =>
          node(
            graph,
            'BatchNormalization',
            ['weight', 'bias', 'runningMean', 'runningVar'].map((name) => constant(graph, name, need(inputs[name]))),
          ),
      }
    case 'maxPool2d':
      return {
        input: channelsFirst(need(inputs.x)),
        maps: true,
        append: (graph) =>
          node(graph, 'MaxPool', [], {
            kernel_shape: [kernel, kernel],
            strides: [stride, stride],
            pads: [padding, padding, padding, padding],
          }),
      }
    case 'globalAveragePool':
      return {
        input: channelsFirst(need(inputs.x)),
        maps: true,
        append: (graph) => node(graph, 'GlobalAveragePool', []),
      }
    case 'resizeBilinear': {
      const [n = 1, h = 1, w = 1, c = 1] = need(results.out)
      const sizes = BigInt64Array.from([n, c, h, w].map(BigInt))
      const attrs = { mode: 'linear', coordinate_transformation_mode: 'align_corners' }
      return {
        input: channelsFirst(need(inputs.x)),
        maps: true,
        append: (graph) => node(graph, 'Resize', ['', '', graph.constant('sizes', [4], sizes)], attrs),
      }
    }
    case 'softmax':
      return {
        input: need(inputs.x),
        maps: false,
        append: (graph) => node(graph, 'Softmax', [], { axis: -1 }),
      }
    case 'layerNorm':
      return {
        input: need(inputs.x),
        maps: false,
        append: (graph) =>
          node(
            graph,
            'LayerNormalization',
            ['weight', 'bias'].map((name) => constant(graph, name, need(inputs[name]))),
          ),
      }
    case 'gelu':
      return { input: need(inputs.x), maps: false, append: appendGelu }
    case 'attention':
      return { input: need(inputs.q), maps: false, append: (graph) => appendAttention(graph, inputs, heads, scale) }
    default:
      return undefined
  }
}

const scalar = (graph: Builder, name: string, value: number) => graph.constant(name, [], Float32Array.of(value))

/** As exporters of opset 17 write it, which the library joins to one operator. */
function appendGelu(graph: Builder): void {
  const scaled = graph.node('scaled', 'Div', ['x', scalar(graph, 'root', Math.SQRT2)])
  const one = graph.node('one more', 'Add', [graph.node('erf', 'Erf', [scaled]), scalar(graph, 'one', 1)])
  graph.node('y', 'Mul', [graph.node('product', 'Mul', ['x', one]), scalar(graph, 'half', 0.5)])
}

/** Products and a softmax, of keys and values that are arranged by heads before. */
function appendAttention(graph: Builder, inputs: Task['inputs'], heads: number, scale: number): void {
  const [n = 1, queries = 1, c = 1] = need(inputs.q).shape
  const shape = (name: string, extents: number[]) =>
    graph.constant(name, [extents.length], BigInt64Array.from(extents.map(BigInt)))
  const byHead = (name: 'k' | 'v', order: readonly number[]) => {
    const { shape, data } = need(inputs[name])
    const split = reordered({ shape: [n, shape[1] ?? 1, heads, c / heads], data }, order)
    return graph.constant(name, split.shape, Float32Array.from(split.data))
  }
  const split = graph.node('split', 'Reshape', ['x', shape('by head', [n, queries, heads, c / heads])])
  const q = graph.node('q', 'Transpose', [split], { perm: [0, 2, 1, 3] })
  const scores = graph.node('scores', 'MatMul', [q, byHead('k', [0, 2, 3, 1])])
  const scaled = graph.node('scaled', 'Mul', [scores, scalar(graph, 'scale', scale)])
  const weights = graph.node('weights', 'Softmax', [scaled], { axis: -1 })
  const each = graph.node('each', 'MatMul', [weights, byHead('v', [0, 2, 1, 3])])
  const joined = graph.node('joined', 'Transpose', [each], { perm: [0, 2, 1, 3] })
  graph.node('y', 'Reshape', [joined, shape('whole', [n, queries, c])])
}

/** The library keeps its memory in a SharedArrayBuffer, which Dawn in Node does not take. */
function acceptSharedMemory(): void {
  const { prototype } = GPUQueue
  const { writeBuffer } = prototype
  prototype.writeBuffer = function (buffer, offset, data, ...range) {
    const shared = ArrayBuffer.isView(data) && data.buffer instanceof SharedArrayBuffer
    const bytes = shared ? Uint8Array.from(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) : data
    return writeBuffer.call(this, buffer, offset, bytes as BufferSource, ...range)
  }
}

export async function open({ wait, GraphBuilder }: PeerContext): Promise<Peer> {
  acceptSharedMemory()
  ort.env.wasm.numThreads = 1
  ort.env.logLevel = 'error'

  async function operator(task: Task): Promise<PeerRun | undefined> {
    const plan = planOf(task)
    if (!plan) return undefined
    const graph = new GraphBuilder()
    plan.append(graph)
    const [[name, shape] = ['out', []]] = Object.entries(task.results)
    const [n = 1, h = 1, w = 1, c = 1] = shape
    const output = { name: 'y', shape: plan.maps ? [n, c, h, w] : shape }
    const input = { name: 'x', shape: plan.input.shape }
    const model = Buffer.concat(graph.model(input, output, { name: task.op, opset: 17, doc: '', metadata: {} }))
    const options: InferenceSession.SessionOptions = {
      executionProviders: ['webgpu'],
      preferredOutputLocation: 'gpu-buffer',
    }
    const session = await wait(ort.InferenceSession.create(model, options))
    const device = await ort.env.webgpu.device
    const data = Float32Array.from(plan.input.data)
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC
    const buffer = device.createBuffer({ size: data.byteLength, usage })
    device.queue.writeBuffer(buffer, 0, data)
    const x = ort.Tensor.fromGpuBuffer(buffer, { dataType: 'float32', dims: [...plan.input.shape] })
    const once = async (): Promise<Tensor> => need((await wait(session.run({ x }))).y)
    return {
      run: async () => (await once()).dispose(),
      idle: () => device.queue.onSubmittedWorkDone(),
      async results() {
        const y = await once()
        const values = (await wait(y.getData(true))) as Float32Array
        return { [name]: plan.maps ? permuted(values, [n, c, h, w], [0, 2, 3, 1]) : values.slice() }
      },
      dispose() {
        x.dispose()
        buffer.destroy()
        void session.release()
      },
    }
  }

  return { name: `onnxruntime-web ${ort.env.versions.web}`, operator, residual: async () => undefined }
}
