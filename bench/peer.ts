import type { GraphBuilder } from '#dist/train/io/protobuf.js'

/** A tensor on the host, in this project's layout: maps are [N, H, W, C], weights [KH, KW, C, O]. */
export interface HostTensor {
  readonly shape: readonly number[]
  readonly data: Float32Array | Uint32Array | Uint8Array
}

/** `training`: the outputs, and the gradients for a given cotangent of the first of them. */
export type TaskPass = 'forward' | 'training'

/** What a peer is to compute: a row of the case table. */
export interface Task {
  readonly op: string
  readonly pass: TaskPass
  /** Such as stride, padding and dilation. */
  readonly attributes: Readonly<Record<string, number>>
  /** Under the names of the case table, and `cotangent` in a training pass. */
  readonly inputs: Readonly<Record<string, HostTensor>>
  /** Shapes of the results: outputs under the names of the case table, and `gradient of INPUT`. */
  readonly results: Readonly<Record<string, readonly number[]>>
}

/** A computation whose tensors are on the device. */
export interface PeerRun {
  /** Submits one run. */
  run(): void | Promise<void>
  /** Resolves when the device has done all runs. */
  idle(): Promise<unknown>
  /** Results of one run, those of the task that are worth comparing, in this project's layout. */
  results(): Promise<Record<string, Float32Array>>
  dispose(): void
}

/** A residual network and its data; see bench/residual.ts. */
export interface ResidualTask {
  readonly classes: number
  readonly learningRate: number
  readonly momentum: number
  readonly weightDecay: number
  /** Step whose loss is compared, from 1: by the third, updates of everything are in it. */
  readonly comparedStep: number
  readonly image: HostTensor
  /** [N, H, W]; every pixel counts. */
  readonly labels: HostTensor
  /** Initial weights by PyTorch's names. */
  readonly weights: Readonly<Record<string, HostTensor>>
  readonly blocks: readonly { readonly name: string; readonly stride: number; readonly shortcut: boolean }[]
}

export interface Peer {
  readonly name: string
  /** Undefined where the library lacks the operator. Its tensors are arranged as it likes them best. */
  operator(task: Task): Promise<PeerRun | undefined>
  /** A training: its `results` are the `loss` of one step. Undefined where the library cannot train. */
  residual(task: ResidualTask): Promise<PeerRun | undefined>
}

/** What a peer gets; the adapter is that of `navigator.gpu`. */
export interface PeerContext {
  /** Awaits a promise of the device's as this project does. */
  readonly wait: <T>(promise: Promise<T>) => Promise<T>
  readonly GraphBuilder: typeof GraphBuilder
}

/** The module of a peer. */
export interface PeerModule {
  open(context: PeerContext): Promise<Peer>
}
