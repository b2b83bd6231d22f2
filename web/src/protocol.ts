/** What the page asks of its worker, and what the worker tells. Everything here crosses `postMessage`. */

/** In pixels. */
export interface Size {
  readonly width: number
  readonly height: number
}

/** Pixels of a picture, RGBA row by row. */
export interface Picture extends Size {
  readonly data: Uint8ClampedArray<ArrayBuffer>
}

/** Where predictions are computed. */
export type Runtime = 'webgpu' | 'wasm'

/** What there is to compute on. */
export interface Machine {
  /** Absent where there is no WebGPU, or no adapter. */
  readonly adapter?: {
    readonly name: string
    readonly vendor: string
    readonly software: boolean
    readonly features: readonly string[]
    readonly limits: Readonly<Record<string, number>>
  }
  /** Why there is none, and what to do about it. */
  readonly reason?: string
  /** Where predictions are computed unless the visitor chooses. */
  readonly runtime: Runtime
}

/** What a file of weights says of itself. */
export interface Model {
  readonly name: string
  readonly bytes: number
  readonly architecture: string
  readonly parameters: number
  readonly classes: readonly string[]
  /** Red, green, blue of 0 to 255, of each class. */
  readonly palette: readonly (readonly [number, number, number])[]
  /** What the file says besides, such as under which key the weights were. */
  readonly note?: string
  /** Trainings in this page that it can go back from. */
  readonly changes: number
}

export interface Segmentation {
  readonly width: number
  readonly height: number
  /** The most probable class of each pixel, [height, width]. */
  readonly labels: Uint8Array<ArrayBuffer>
  /** Its probability. */
  readonly confidence: Float32Array<ArrayBuffer>
  readonly milliseconds: number
  readonly runtime: Runtime
}

/** A network as ONNX. */
export interface OnnxFile {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** That of the pictures that it takes; absent where they may have any. */
  readonly size?: Size
}

/** A picture with what was painted on it. */
export interface Correction {
  readonly picture: Picture
  /** A class for each pixel, or 255 where nothing was painted. */
  readonly labels: Uint8Array<ArrayBuffer>
}

export interface LearnOptions {
  readonly corrections: readonly Correction[]
  readonly unlabeled: readonly Picture[]
  readonly method: string
  /** Only the head learns, from features that are computed once: see `fineTune`. */
  readonly head: boolean
  readonly steps: number
  readonly learningRate: number
}

export interface WatchOptions {
  readonly method: string
  readonly seed: number
}

/** A painted scene: RGB pixels and a class for each. */
export interface Scene {
  readonly size: number
  readonly image: Uint8Array<ArrayBuffer>
  readonly label: Uint8Array<ArrayBuffer>
}

/** Which of the two trainings. */
export type Side = 'supervised' | 'method'

/** What happens while the page watches trainings, in the order of the messages. */
export type WatchEvent =
  | {
      readonly kind: 'scenes'
      readonly labeled: readonly Scene[]
      readonly heldOut: readonly Scene[]
      readonly steps: number
    }
  | { readonly kind: 'compiling'; readonly side: Side; readonly done: number; readonly all: number }
  | {
      readonly kind: 'loss'
      readonly side: Side
      readonly step: number
      readonly loss: number
      readonly milliseconds: number
    }
  | {
      readonly kind: 'masks'
      readonly side: Side
      readonly step: number
      readonly miou: number
      readonly masks: readonly Uint8Array<ArrayBuffer>[]
    }
  | { readonly kind: 'restarted'; readonly step: number; readonly reason: string }

/** What the worker tells without being asked. */
export interface Events {
  /** The worker runs, and answers. */
  started: undefined
  /** A line for the log of the page. */
  log: { readonly line: string }
  machine: Machine
  /** Kernels that are compiled. */
  compiling: { readonly what: string; readonly done: number; readonly all: number }
  /** Features of crops that are computed before the head learns from them. */
  features: { readonly done: number; readonly all: number }
  learning: { readonly step: number; readonly steps: number; readonly loss: number }
  watch: WatchEvent
  /** Bytes of device memory that were planned, by what for. */
  memory: { readonly what: string; readonly bytes: number }
}

/** What the page may ask: arguments and answers. */
export interface Calls {
  open: { ask: undefined; answer: Machine }
  load: { ask: { readonly name: string; readonly bytes: ArrayBuffer }; answer: Model }
  /** Scores of the picture, enlarged to another size before classes are compared. */
  segment: { ask: { readonly picture: Picture; readonly out: Size; readonly runtime: Runtime }; answer: Segmentation }
  learn: { ask: LearnOptions; answer: Model }
  undo: { ask: undefined; answer: Model }
  weights: { ask: undefined; answer: Uint8Array<ArrayBuffer> }
  /** For pictures of this size, where the network computes none of others alike. */
  onnx: { ask: Size; answer: OnnxFile }
  /** Answered when both trainings are done, or others replaced them. */
  watch: { ask: WatchOptions; answer: undefined }
  pause: { ask: { readonly paused: boolean }; answer: undefined }
  scene: { ask: { readonly seed: number; readonly index: number; readonly size: number }; answer: Scene }
}

export type CallName = keyof Calls

export type Request = {
  readonly [Name in CallName]: { readonly id: number; readonly call: Name; readonly ask: Calls[Name]['ask'] }
}[CallName]

/** Ends what a request began. */
export interface Abort {
  readonly abort: number
}

export type Reply =
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly error: { readonly name: string; readonly message: string } }
  | { readonly event: keyof Events; readonly detail: unknown }
