import { type Arena, destroyMemory, ownMemory, type ProgramMemory } from './arena.js'
import { addressOf, type Bindings, bindSteps, makeUniforms } from './bind.js'
import { type Device, ValidationError } from './device.js'
import { Graph, traceOf, tracing } from './graph.js'
import type { AnyStep, Segment } from './host-calls.js'
import type { Tensor, Trace } from './ir.js'
import { kernelSelectionOf, type SelectKernel } from './kernel-selection.js'
import { type Command, copyInfo, lower } from './lower.js'
import { mirrorBytes } from './mirror.js'
import { costOf } from './pace.js'
import { dropDead } from './passes/drop-dead.js'
import { type CompilationWatch, compilePipelines } from './pipelines.js'
import { type Plan, plan } from './plan.js'
import type { PrintedProgram } from './print-program.js'
import type { KernelInfo } from './profile.js'
import { type BufferAddress, replay, type Step, submit } from './replay.js'
import { byteLength, type Data, type DataOf, type DType, type Spec, showSpec } from './shape.js'
import { type Store, typedArray, upload } from './store.js'
import { type TransformOptions, transform } from './transform.js'
import type { GPUComputePipeline } from './webgpu-types.js'
import { type Work, workOf } from './work.js'

export interface CompileOptions extends TransformOptions, CompilationWatch {
  /** Selects among an operator's kernels; by default as the device's programs do: see `setKernelSelection`. */
  readonly selectKernel?: SelectKernel
  /** Whether values with disjoint lifetimes share buffers; by default as `optimize`. */
  readonly share?: boolean
  /** Where inputs and intermediates live, in place of buffers of the program's own. */
  readonly arena?: Arena
}

/** Memory of a program in bytes, besides inputs and variables. */
export interface MemorySummary {
  /** What the program holds: values with disjoint lifetimes share buffers. */
  readonly planned: number
  /** The largest sum of values that live at the same time: the least that any sharing could reach. */
  readonly live: number
  /** What it would hold if every value had a buffer of its own. */
  readonly unshared: number
  readonly dispatches: number
  /** Calls of JavaScript between them. */
  readonly hostCalls: number
}

/**
 * Traces `body` once and returns the program that replays it.
 *
 * @param inputs shape and element type of each input, which `body` gets as tensors of the same names
 * @param body calls operators, reads and assigns variables, and returns what `Program.read` can fetch
 * @throws Error that names the operator, the shapes and the caller's line; or the kernel that does not compile
 * @throws BindingLimitError or OutOfMemoryError where the program does not fit the adapter, with the largest tensors
 */
export async function compile<I extends Record<string, Spec>, O extends Record<string, Tensor>>(
  device: Device,
  inputs: I,
  body: (tensors: { [K in keyof I]: Tensor }) => O,
  options: CompileOptions = {},
): Promise<Program<I, O>> {
  const { label = 'program', optimize = true, signal } = options
  signal?.throwIfAborted()
  const graph = new Graph()
  const symbols: Record<string, Tensor> = {}
  for (const [name, spec] of Object.entries(inputs)) symbols[name] = graph.input(name, spec)
  const outputs = tracing(graph, () => body(symbols as { [K in keyof I]: Tensor }))
  const full = dropDead(traceOf(graph, new Map(Object.entries(outputs))))
  const trace = await transform(full, device.traits, options)
  const select = options.selectKernel ?? (await kernelSelectionOf(device)(trace))
  signal?.throwIfAborted()
  const share = options.share ?? optimize
  const whole = plan(await lower(trace, device.traits, select, share), share)
  const planned = { ...whole, commands: await cut(whole.commands, device.pace?.longest()) }
  const pipelines = await compilePipelines(device, planned.commands, options)
  const specs = new Map([...trace.outputs].map(([name, { shape, dtype }]): [string, Spec] => [name, { shape, dtype }]))
  const memory = async () => (await import('./memory-report.js')).describeMemory(trace, plannedBytes(planned))
  const made: Program<I, O>[] = []
  try {
    return await device.guarded(
      async () => `allocating ${await memory()} for ${label}`,
      () => {
        const parts = { label, traced: full, trace, planned, pipelines }
        const program = new Program<I, O>(device, inputs, specs, parts, options.arena)
        made.push(program)
        return program
      },
    )
  } catch (error) {
    for (const program of made) program.destroy()
    throw error
  }
}

/** The commands, of which those that would hold a GPU for longer are in parts. */
async function cut(commands: readonly Command[], longest = Number.POSITIVE_INFINITY): Promise<readonly Command[]> {
  if (!commands.some(({ info }) => costOf(info) > longest)) return commands
  return (await import('./cut.js')).cutLong(commands, longest)
}

/** Bytes of the buffers and textures of a program. */
const plannedBytes = ({ buffers, textures }: Plan): number => sum(buffers) + sum(textures.map(mirrorBytes))

const sum = (numbers: readonly number[]): number => numbers.reduce((total, value) => total + value, 0)

export interface RunOptions {
  /** Stores to use instead of those that were traced; their variables are found by name. */
  readonly stores?: ReadonlyMap<Store, Store>
}

/** What `compile` made of a function. */
interface ProgramParts extends PrintedProgram {
  readonly pipelines: ReadonlyMap<Command, GPUComputePipeline>
}

/** A compiled function of tensors. Owns its buffers until `destroy`, save those of an arena. */
export class Program<
  I extends Record<string, Spec> = Record<string, Spec>,
  O extends object = Record<string, unknown>,
> {
  readonly memory: MemorySummary
  private readonly owned: ProgramMemory
  private readonly bindings: Bindings
  private readonly steps: AnyStep[]
  /** Of each step, see `costOf`. */
  private readonly costs: readonly number[]
  /** Of the last run, whose outputs `read` gives. */
  private lastStores: ReadonlyMap<Store, Store> = new Map()
  private rebound: { stores: ReadonlyMap<Store, Store>; steps: AnyStep[] }[] = []
  /** Where the program holds host calls, by its steps. */
  private readonly segments = new WeakMap<readonly AnyStep[], readonly Segment[]>()

  constructor(
    private readonly device: Device,
    private readonly inputs: I,
    private readonly outputs: ReadonlyMap<string, Spec>,
    /** What it was made of; see `printProgram`. */
    readonly parts: ProgramParts,
    private readonly arena?: Arena,
  ) {
    const { label, planned } = parts
    const names = Object.keys(inputs)
    const sizes = [...planned.buffers, ...Object.values(inputs).map(byteLength)]
    const labelOf = (i: number) => {
      const name = names[i - planned.buffers.length]
      return name === undefined ? `${label} buffer ${i}` : `${label} input ${name}`
    }
    const { textures } = planned
    this.owned = arena ? arena.take(sizes, textures) : ownMemory(device, labelOf, sizes, textures)
    const inputBuffers = this.owned.buffers.slice(planned.buffers.length)
    this.bindings = {
      ...parts,
      memory: this.owned,
      inputs: new Map(inputBuffers.map((buffer, i) => [names[i] ?? '', buffer])),
      uniforms: makeUniforms(device, label, planned.commands),
    }
    this.steps = bindSteps(device, this.bindings, new Map())
    this.costs = this.kernelInfos().map(costOf)
    const { unsharedBytes: unshared, liveBytes: live, commands } = planned
    const hostCalls = commands.filter(({ kind }) => kind === 'host begin').length
    const dispatches = commands.length - 2 * hostCalls
    this.memory = { planned: plannedBytes(planned), live, unshared, dispatches, hostCalls }
  }

  /**
   * Submits one run. It reads and updates variables in the order of the calls; nothing waits.
   * Throws where an input is missing, or its length or type differs from the declared one, and for host calls.
   */
  run(inputs: { [K in keyof I]: Data }, options: RunOptions = {}): void {
    if (this.memory.hostCalls > 0) throw new Error(`${this.parts.label} holds host calls: it takes runAsync`)
    this.runAtOnce(inputs, options)
  }

  /**
   * One run of a program that may hold host calls: resolves when all of it is submitted, at once where it holds none. Nothing
   * else may run in the same memory meanwhile.
   */
  async runAsync(inputs: { [K in keyof I]: Data }, options: RunOptions = {}): Promise<void> {
    if (this.memory.hostCalls === 0) {
      this.runAtOnce(inputs, options)
      return
    }
    const { runSegments, segmentsOf } = await import('./host-calls.js')
    this.begin(inputs, options)
    const steps = this.stepsFor(options.stores)
    const segments = this.segments.get(steps) ?? segmentsOf(steps, this.kernelInfos())
    this.segments.set(steps, segments)
    const { pace } = this.device
    const ends =
      pace &&
      ((kernels: readonly KernelInfo[]) => {
        const costs = kernels.map(costOf)
        pace.submitted(sum(costs))
        return pace.ends(costs)
      })
    await runSegments(this.device, this.parts.label, segments, ends ?? (() => undefined))
  }

  private begin(inputs: { [K in keyof I]: Data }, options: RunOptions): void {
    this.device.alive()
    for (const [name, spec] of Object.entries(this.inputs)) {
      const data = inputs[name]
      const buffer = this.bindings.inputs.get(name)
      if (!data || !buffer) throw new Error(`${this.parts.label}: input '${name}' is missing`)
      upload(this.device, buffer, spec, data, `${this.parts.label}: input '${name}'`)
    }
    this.lastStores = options.stores ?? new Map()
  }

  private runAtOnce(inputs: { [K in keyof I]: Data }, options: RunOptions): void {
    const began = performance.now()
    this.begin(inputs, options)
    // Who calls this has seen that none of them is a host call.
    this.submit(this.stepsFor(options.stores) as Step[], this.costs, began)
  }

  /** Submits a run over each of these stores, see `RunOptions`, in as few submissions as may be: a way to time them. */
  runOver(stores: readonly ReadonlyMap<Store, Store>[]): void {
    const began = performance.now()
    this.lastStores = stores.at(-1) ?? new Map()
    const steps = stores.flatMap((each) => this.stepsFor(each)) as Step[]
    const costs = stores.flatMap(() => this.costs)
    this.submit(steps, costs, began)
  }

  private submit(steps: readonly Step[], costs: readonly number[], began: number): void {
    const { pace } = this.device
    const ends = pace?.ends(costs)
    this.device.scoped(() =>
      submit(this.device.gpu, { program: this.parts.label, began, steps, ends, kernels: () => this.kernelInfos() }),
    )
    pace?.submitted(sum(costs))
    try {
      this.device.check()
    } catch (error) {
      throw error instanceof ValidationError ? this.naming(error, steps) : error
    }
  }

  /** A validation error with the kernel that causes it, which Dawn does not tell: each step is encoded by itself. */
  private naming(error: ValidationError, steps: readonly Step[]): Error {
    for (const step of steps) {
      this.device.scoped(() => {
        const encoder = this.device.gpu.createCommandEncoder({ label: this.parts.label })
        replay(encoder, this.parts.label, [step])
        encoder.finish()
      })
      try {
        this.device.check()
      } catch {
        const kernel = step.kind === 'dispatch' ? `kernel ${step.label}` : 'a copy'
        return new ValidationError(`${this.parts.label}: ${kernel}: ${error.message}`)
      }
    }
    return new ValidationError(`${this.parts.label}: ${error.message}`)
  }

  /** Whether it has an output of this name. */
  delivers(name: string): boolean {
    return this.outputs.has(name)
  }

  /** Values of outputs after the last run, in the order of `names`. */
  async readAll(names: readonly (keyof O & string)[]): Promise<Data[]> {
    const found = names.map((name) => this.output(name))
    const copies = await this.device.read(found.map(({ spec, address }) => ({ ...address, bytes: byteLength(spec) })))
    return found.map(({ spec }, i) => typedArray(copies[i] ?? new ArrayBuffer(0), spec))
  }

  /** An output of the last run, and where it lies. Throws where there is none of this name. */
  output(name: keyof O & string): { spec: Spec; address: BufferAddress } {
    const spec = this.outputs.get(name)
    if (!spec) throw new Error(`${this.parts.label}: no output '${name}'`)
    return { spec, address: this.outputAddress(name) }
  }

  /** The value of one output after the last run. Throws where its element type is not `dtype`. */
  async read<D extends DType = 'f32'>(name: keyof O & string, dtype?: D): Promise<DataOf[D]> {
    const wanted = dtype ?? 'f32'
    const [data] = await this.readAll([name])
    const actual = this.outputs.get(name)?.dtype
    if (!data || actual !== wanted) throw new Error(`${this.parts.label}: output '${name}' is ${actual}, not ${wanted}`)
    return data as DataOf[D]
  }

  /** The nodes that run, after fusion: for tests and profiles. */
  get nodes(): Trace['nodes'] {
    return this.parts.trace.nodes
  }

  get work(): Work {
    return workOf(this.kernelInfos())
  }

  /** The host calls in their order: what is called, and the shapes that it gets and gives. */
  get hostCalls(): string[] {
    return this.parts.planned.commands.flatMap((command) =>
      command.kind === 'host begin' ? [`${command.call.label} ${command.specs.map(showSpec).join(', ')}`] : [],
    )
  }

  /** Labels of the dispatches in their order. */
  get kernels(): string[] {
    return this.parts.planned.commands.map((command) =>
      command.kind === 'dispatch' ? command.dispatch.label : command.kind,
    )
  }

  /** What each step of a replay does. */
  private kernelInfos(): KernelInfo[] {
    const { commands, variableWrites } = this.parts.planned
    const writes = variableWrites.map(({ variable }) => copyInfo('new value of a variable', byteLength(variable.spec)))
    return [...commands.map(({ info }) => info), ...writes]
  }

  destroy(): void {
    if (this.arena) this.arena.give(this.owned)
    else destroyMemory(this.owned)
    this.bindings.uniforms.buffer.destroy()
  }

  private outputAddress(name: string): BufferAddress {
    const location = this.parts.planned.outputs.get(name)
    if (!location) throw new Error(`${this.parts.label}: output '${name}' has no buffer`)
    return addressOf(this.bindings, location, this.lastStores)
  }

  private stepsFor(stores: ReadonlyMap<Store, Store> | undefined): AnyStep[] {
    if (!stores || stores.size === 0) return this.steps
    const same = (other: ReadonlyMap<Store, Store>) =>
      other.size === stores.size && [...stores].every(([from, to]) => other.get(from) === to)
    const known = this.rebound.find((entry) => same(entry.stores))
    if (known) return known.steps
    const steps = this.device.scoped(() => bindSteps(this.device, this.bindings, stores))
    this.rebound.push({ stores: new Map(stores), steps })
    return steps
  }

  /** Forgets the bindings of a store that is about to be destroyed. */
  forget(store: Store): void {
    this.rebound = this.rebound.filter(({ stores }) => ![...stores.values()].includes(store))
  }
}
