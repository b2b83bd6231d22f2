import { assign, read, scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { elements, type Shape, spec } from '../engine/shape.js'
import type { Store, Variable } from '../engine/store.js'
import { batchNormEvaluation, batchNormTraining } from '../kernels/batchnorm.js'
import { batchNormSynchronized } from '../kernels/batchnorm-synchronized.js'
import { conv2d } from '../kernels/conv2d.js'
import type { Exchange } from '../kernels/exchange.js'
import { add, mul, relu } from '../kernels/pointwise.js'

/** Source of initial values. */
export interface InitialRandom {
  /** Uniform in [low, high). */
  uniform(low: number, high: number): number
  /** Standard normal. */
  normal(): number
}

/** Where a layer declares its variables: a store, and the path of the layer in it. */
export class Declarations {
  /**
   * @param random draws the initial weights; without it they are 0, for values that are loaded afterwards
   * @param path PyTorch's name of the module, such as `backbone.layer1.0`
   * @param parameters takes what this module and its submodules declare as parameters
   * @param normalization takes those of them that are parameters of normalisation layers
   */
  constructor(
    private readonly store: Store,
    readonly random: InitialRandom | undefined,
    private readonly path = '',
    readonly parameters: Variable[] = [],
    readonly normalization = new Set<Variable>(),
  ) {}

  /** What was declared so far for an optimizer. */
  get group(): { readonly parameters: readonly Variable[]; readonly normalization: ReadonlySet<Variable> } {
    const { parameters, normalization } = this
    return { parameters, normalization }
  }

  /** The place of a submodule; `name` may have several parts. */
  at(name: string): Declarations {
    const path = this.path === '' ? name : `${this.path}.${name}`
    return new Declarations(this.store, this.random, path, this.parameters, this.normalization)
  }

  /** The same place for parameters that nothing reads, and that no optimizer gets. */
  untrained(): Declarations {
    return new Declarations(this.store, this.random, this.path)
  }

  /** Declares a variable that training changes by its gradient, its elements given by `value`, or 0. */
  parameter(name: string, shape: Shape, value?: () => number): Variable {
    const variable = this.statistic(name, shape, value)
    this.parameters.push(variable)
    return variable
  }

  /** Declares a parameter of a normalisation layer. */
  normalizing(name: string, shape: Shape, value?: () => number): Variable {
    const variable = this.parameter(name, shape, value)
    this.normalization.add(variable)
    return variable
  }

  /** Declares a variable that no gradient changes, such as a running mean, its elements given by `value`, or 0. */
  statistic(name: string, shape: Shape, value?: () => number): Variable {
    const data = value && Float32Array.from({ length: elements(shape) }, value)
    return this.store.declare(`${this.path}.${name}`, spec(shape), data)
  }
}

/** Multipliers that drop parts of a map at random: [samples], or [samples, channels]. */
export interface NoiseSpec {
  readonly samples: number
  readonly channels?: number
  /** Probability of 0; all else is 1 / (1 - rate). */
  readonly rate: number
}

/** Called while tracing: the multipliers of a place in a model, drawn anew for each pass. */
export type Noise = (name: string, noise: NoiseSpec) => Tensor

export interface Mode {
  /** Whether batch norm takes the statistics of the batch and updates the running ones. */
  readonly training: boolean
  /** In training; without it nothing is dropped. */
  readonly noise?: Noise
  /** In training: the ranks over which batch norm takes its statistics; its own values alone where it is absent. */
  readonly exchange?: Exchange | undefined
}

/** Feature maps in, feature maps out: [N, H, W, C]. Called while tracing. */
export type Layer = (x: Tensor, mode: Mode) => Tensor

export interface ConvOptions {
  readonly kernel?: number
  readonly stride?: number
  readonly dilation?: number
  /** Groups of channels that see only each other; as many as channels: depthwise. */
  readonly groups?: number
  /** Zeros on each side; by default as many as keep the size. */
  readonly padding?: number
  readonly bias?: boolean
  /**
   * `uniform`: PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias;
   * `fanOut`: N(0, 2/fan_out), as residual networks have it; a `deviation`: normal with it, and the bias 0.
   */
  readonly init?: 'uniform' | 'fanOut' | { readonly deviation: number }
}

/** A convolution that keeps the size of the map, up to its stride. */
export function conv(at: Declarations, cin: number, cout: number, options: ConvOptions = {}): Layer {
  const { kernel = 1, stride = 1, dilation = 1, groups = 1, bias = false, init = 'uniform' } = options
  const { padding = dilation * Math.floor(kernel / 2) } = options
  const { random } = at
  const bound = 1 / Math.sqrt((cin / groups) * kernel * kernel)
  const deviation = typeof init === 'object' ? init.deviation : Math.sqrt(2 / (cout * kernel * kernel))
  const uniform = random && (() => random.uniform(-bound, bound))
  const normal = random && (() => deviation * random.normal())
  const weight = at.parameter('weight', [kernel, kernel, cin / groups, cout], init === 'uniform' ? uniform : normal)
  const offset = bias ? at.parameter('bias', [cout], typeof init === 'object' ? undefined : uniform) : undefined
  return (x) => {
    const y = conv2d(x, read(weight), { stride, padding, dilation, groups })
    return offset ? add(y, read(offset)) : y
  }
}

/** A convolution with the initial weights of residual networks. */
export const convolution = (at: Declarations, cin: number, cout: number, options: ConvOptions = {}): Layer =>
  conv(at, cin, cout, { ...options, init: 'fanOut' })

/** ReLU behind a layer. */
export const activated =
  (layer: Layer): Layer =>
  (x, mode) =>
    relu(layer(x, mode))

/** PyTorch's counter of training-mode passes beside a running variance; undefined for any other variable. */
export const batchCounterOf = (name: string): string | undefined =>
  /\.running_var$/.test(name) ? name.replace(/running_var$/, 'num_batches_tracked') : undefined

/** The counters of all batch norms of a store, all 0. */
export const batchCounters = (store: Store): Map<string, number> =>
  new Map(
    store.all().flatMap(({ name }) => {
      const counter = batchCounterOf(name)
      return counter === undefined ? [] : [[counter, 0] as const]
    }),
  )

/** Batch norm; the running statistics are those of PyTorch (unbiased variance; `momentum` is the share of a batch). */
export function batchNorm(
  at: Declarations,
  channels: number,
  { momentum = 0.1 }: { readonly momentum?: number } = {},
): Layer {
  const weight = at.normalizing('weight', [channels], () => 1)
  const bias = at.normalizing('bias', [channels])
  const runningMean = at.statistic('running_mean', [channels])
  const runningVar = at.statistic('running_var', [channels], () => 1)
  return (x, { training, exchange }) => {
    const state = {
      weight: read(weight),
      bias: read(bias),
      runningMean: read(runningMean),
      runningVar: read(runningVar),
    }
    if (!training) return batchNormEvaluation(x, state)
    const result = exchange
      ? batchNormSynchronized(x, state, exchange, { momentum })
      : batchNormTraining(x, state, { momentum })
    assign(runningMean, result.runningMean)
    assign(runningVar, result.runningVar)
    return result.y
  }
}

/** Convolution without bias, batch norm, ReLU, named as three places of a PyTorch `Sequential` from `first` on. */
export function convUnit(
  at: Declarations,
  first: number,
  cin: number,
  cout: number,
  options: Omit<ConvOptions, 'bias'> = {},
): Layer {
  const convolve = conv(at.at(`${first}`), cin, cout, options)
  const normalize = batchNorm(at.at(`${first + 1}`), cout)
  return named(`${first}`, (x, mode) => relu(normalize(convolve(x, mode), mode)))
}

/**
 * Stochastic depth (Huang et al., 2016): a residual branch [N, ...] of which each sample is dropped with probability
 * `rate`, and divided by 1 - rate where it is kept.
 */
export function dropPath(x: Tensor, name: string, rate: number, { noise }: Mode): Tensor {
  if (!noise || rate === 0) return x
  const [samples = 0, ...rest] = x.shape
  return mul(x, noise(name, { samples, rate }).reshape(samples, ...rest.map(() => 1)))
}

/** Rates of `dropPath` of all blocks, in float32 as PyTorch has them: from 0 on to that of the last block. */
export function dropPathRates(stages: readonly number[], last: number): number[] {
  const blocks = stages.reduce((sum, depth) => sum + depth, 0)
  return Array.from({ length: blocks }, (_, i) => (i === 0 ? 0 : Math.fround((last * i) / (blocks - 1))))
}

/** Dropout of whole channels of a map [N, ..., C], as PyTorch's `Dropout2d`. */
export function dropChannels(x: Tensor, name: string, rate: number, { noise }: Mode): Tensor {
  if (!noise || rate === 0) return x
  const [samples = 0, ...rest] = x.shape
  const channels = rest.at(-1) ?? 1
  const multipliers = noise(name, { samples, channels, rate })
  return mul(x, multipliers.reshape(samples, ...rest.slice(1).map(() => 1), channels))
}

/** The layer whose operators carry `name` in errors and profiles. */
export const named =
  (name: string, layer: Layer): Layer =>
  (x, mode) =>
    scoped(name, () => layer(x, mode))

/** One layer after the other. */
export const sequence =
  (layers: readonly Layer[]): Layer =>
  (x, mode) =>
    layers.reduce((y, layer) => layer(y, mode), x)
