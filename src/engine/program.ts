import { type Arena, destroyMemory, ownMemory, type ProgramMemory } from './arena.js'
import { type Device, type Layout, ValidationError } from './device.js'
import { Graph, traceOf, tracing } from './graph.js'
import type { Tensor, Trace } from './ir.js'
import type { Dispatch, Operand } from './kernel.js'
import { kernelSelectionOf, type SelectKernel } from './kernel-selection.js'
import { type Command, lower } from './lower.js'
import { checkBindings, describeMemory } from './memory-report.js'
import { mirrorBytes } from './mirror.js'
import { autocast, type Cast } from './passes/autocast.js'
import { batchUpdates } from './passes/batch-updates.js'
import { concatInPlace } from './passes/concat-in-place.js'
import { fuseEpilogues } from './passes/fuse-epilogues.js'
import { fusePointwise } from './passes/fuse-pointwise.js'
import { recompute } from './passes/recompute.js'
import { dropDead, shareEqual } from './passes/rewrite.js'
import { updateEarly } from './passes/update-early.js'
import { type Location, type Plan, plan } from './plan.js'
import { type PrintedProgram, printProgram } from './print-program.js'
import type { KernelInfo } from './profile.js'
import { type BufferAddress, replay, type Step, submit } from './replay.js'
import { byteLength, type Data, type DataOf, type DType, type Spec } from './shape.js'
import { type Store, typedArray, upload, type Variable } from './store.js'
import type { GPUBuffer, GPUComputePipeline } from './webgpu-types.js'
import { type Work, workOf } from './work.js'

export interface CompileOptions {
  /** Name of the program in errors and profiles. */
  readonly label?: string
  /** false: no fusion, no sharing of buffers. The results must be the same. */
  readonly optimize?: boolean
  /** Selects among an operator's kernels; by default as the device's programs do: see `setKernelSelection`. */
  readonly selectKernel?: SelectKernel
  /** Called as pipelines are compiled. */
  readonly onProgress?: (done: number, total: number) => void
  /** The stage that a scope belongs to, if any, whose activations the backward pass computes again; see `recompute`. */
  readonly recompute?: (scope: string) => string | undefined
  /** Computes in half precision by this cast; see `autocast`. Needs an adapter with `shader-f16`. */
  readonly autocast?: Cast | undefined
  /** A last pass over the trace, before kernels are chosen. */
  readonly pass?: (trace: Trace) => Trace
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
  const { label = 'program', optimize = true } = options
  const graph = new Graph()
  const symbols: Record<string, Tensor> = {}
  for (const [name, spec] of Object.entries(inputs)) symbols[name] = graph.input(name, spec)
  const outputs = tracing(graph, () => body(symbols as { [K in keyof I]: Tensor }))
  const full = dropDead(traceOf(graph, new Map(Object.entries(outputs))))
  const raw = options.autocast ? autocast(full, options.autocast) : full
  const passed = optimize ? optimized(raw, device, options.recompute) : raw
  const trace = options.pass?.(passed) ?? passed
  checkBindings(trace, label, device.gpu.limits.maxStorageBufferBindingSize)
  const select = options.selectKernel ?? (await kernelSelectionOf(device)(trace))
  const planned = plan(lower(trace, device.traits, select), options.share ?? optimize)
  const pipelines = await compilePipelines(device, planned.commands, options.onProgress)
  const specs = new Map([...trace.outputs].map(([name, { shape, dtype }]): [string, Spec] => [name, { shape, dtype }]))
  const memory = describeMemory(trace, plannedBytes(planned))
  const made: Program<I, O>[] = []
  try {
    return await device.guarded(`allocating ${memory} for ${label}`, () => {
      const parts = { label, traced: full, trace, planned, pipelines }
      const program = new Program<I, O>(device, inputs, specs, parts, options.arena)
      made.push(program)
      return program
    })
  } catch (error) {
    for (const program of made) program.destroy()
    throw error
  }
}

/** Bytes of the buffers and textures of a program. */
const plannedBytes = ({ buffers, textures }: Plan): number => sum(buffers) + sum(textures.map(mirrorBytes))

const sum = (numbers: readonly number[]): number => numbers.reduce((total, value) => total + value, 0)

function optimized(trace: Trace, device: Device, stageOf: CompileOptions['recompute']): Trace {
  const { maxStorageBuffers } = device.traits
  const pointwise = fusePointwise(dropDead(shareEqual(trace)), maxStorageBuffers)
  const fused = fuseEpilogues(pointwise, maxStorageBuffers)
  // Behind fusion: what is computed again then goes through the same kernels as before, and gives the same bits.
  const placed = concatInPlace(stageOf ? recompute(fused, stageOf) : fused)
  return batchUpdates(updateEarly(placed), maxStorageBuffers)
}

/** What a dispatch binds. */
export const layoutOf = ({ uniforms, reads, writes }: Dispatch): Layout => {
  const read = ({ mirror }: Operand) => (mirror ? { rgba32float: 'f', rgba16float: 'h' }[mirror] : 'r')
  return `${uniforms.length > 0 ? 'u' : ''}${reads.map(read).join('')}${'w'.repeat(writes.length)}`
}

async function compilePipelines(
  device: Device,
  commands: readonly Command[],
  onProgress: CompileOptions['onProgress'],
): Promise<Map<Command, GPUComputePipeline>> {
  const dispatches = commands.filter((command) => command.kind === 'dispatch')
  const total = new Set(dispatches.map(({ dispatch }) => dispatch.source)).size
  const done = new Set<string>()
  const made = dispatches.map(async (command) => {
    const { label, source } = command.dispatch
    const pipeline = await device.pipeline(label, source, layoutOf(command.dispatch))
    if (!done.has(source)) onProgress?.(done.add(source).size, total)
    return [command, pipeline] as const
  })
  // Every failure is awaited, so that none is reported later as unhandled.
  const settled = await device.wait(Promise.allSettled(made))
  return new Map(
    settled.map((result) => {
      if (result.status === 'rejected') throw result.reason
      return result.value
    }),
  )
}

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
  private readonly inputBuffers = new Map<string, GPUBuffer>()
  private readonly uniforms: GPUBuffer
  private readonly uniformOffsets = new Map<Command, { offset: number; size: number }>()
  private readonly steps: Step[]
  /** Of the last run, whose outputs `read` gives. */
  private lastStores: ReadonlyMap<Store, Store> = new Map()
  private rebound: { stores: ReadonlyMap<Store, Store>; steps: Step[] }[] = []

  constructor(
    private readonly device: Device,
    private readonly inputs: I,
    private readonly outputs: ReadonlyMap<string, Spec>,
    private readonly parts: ProgramParts,
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
    for (const [i, buffer] of this.owned.buffers.slice(planned.buffers.length).entries())
      this.inputBuffers.set(names[i] ?? '', buffer)
    this.uniforms = this.makeUniforms()
    this.steps = this.bind(new Map())
    const { unsharedBytes: unshared, liveBytes: live, commands } = planned
    this.memory = { planned: plannedBytes(planned), live, unshared, dispatches: commands.length }
  }

  /**
   * Submits one run. It reads and updates variables in the order of the calls; nothing waits.
   * Throws where an input is missing, or its length or type differs from the declared one.
   */
  run(inputs: { [K in keyof I]: Data }, options: RunOptions = {}): void {
    const began = performance.now()
    for (const [name, spec] of Object.entries(this.inputs)) {
      const data = inputs[name]
      const buffer = this.inputBuffers.get(name)
      if (!data || !buffer) throw new Error(`${this.parts.label}: input '${name}' is missing`)
      upload(this.device, buffer, spec, data, `${this.parts.label}: input '${name}'`)
    }
    this.lastStores = options.stores ?? new Map()
    const steps = this.stepsFor(options.stores)
    submit(this.device.gpu, { program: this.parts.label, began, steps, kernels: () => this.kernelInfos() })
    try {
      this.device.check()
    } catch (error) {
      throw error instanceof ValidationError ? this.naming(error, steps) : error
    }
  }

  /** A validation error with the kernel that causes it, which Dawn does not tell: each step is encoded by itself. */
  private naming(error: ValidationError, steps: readonly Step[]): Error {
    for (const step of steps) {
      const encoder = this.device.gpu.createCommandEncoder({ label: this.parts.label })
      replay(encoder, this.parts.label, [step])
      encoder.finish()
      try {
        this.device.check()
      } catch {
        const kernel = step.kind === 'dispatch' ? `kernel ${step.label}` : 'a copy'
        return new ValidationError(`${this.parts.label}: ${kernel}: ${error.message}`)
      }
    }
    return new ValidationError(`${this.parts.label}: ${error.message}`)
  }

  /** Values of outputs after the last run, in the order of `names`. */
  async readAll(names: readonly (keyof O & string)[]): Promise<Data[]> {
    const specs = names.map((name) => {
      const spec = this.outputs.get(name)
      if (!spec) throw new Error(`${this.parts.label}: no output '${name}'`)
      return spec
    })
    const ranges = specs.map((spec, i) => ({ ...this.outputAddress(names[i] ?? ''), bytes: byteLength(spec) }))
    const copies = await this.device.read(ranges)
    return specs.map((spec, i) => typedArray(copies[i] ?? new ArrayBuffer(0), spec))
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
    return workOf(this.nodes, this.kernelInfos())
  }

  /** Labels of the dispatches in their order. */
  get kernels(): string[] {
    return this.parts.planned.commands.map((command) =>
      command.kind === 'dispatch' ? command.dispatch.label : command.kind,
    )
  }

  /** The trace, what became of it, the commands of a run and the memory, as lines for people. */
  toString(): string {
    return printProgram(this.parts)
  }

  /** What each step of a replay does. */
  private kernelInfos(): KernelInfo[] {
    const copy = (what: string, bytes: number) => ({
      op: 'copy',
      layer: '',
      kernel: what,
      shapes: '',
      bytes: 2 * bytes,
    })
    const commands = this.parts.planned.commands.map((command) =>
      command.kind === 'dispatch' ? command.info : copy(command.label, command.bytes),
    )
    const writes = this.parts.planned.variableWrites.map(({ variable }) =>
      copy('new value of a variable', byteLength(variable.spec)),
    )
    return [...commands, ...writes]
  }

  destroy(): void {
    if (this.arena) this.arena.give(this.owned)
    else destroyMemory(this.owned)
    this.uniforms.destroy()
  }

  private outputAddress(name: string): BufferAddress {
    const location = this.parts.planned.outputs.get(name)
    if (!location) throw new Error(`${this.parts.label}: output '${name}' has no buffer`)
    return this.addressOf(location, this.lastStores)
  }

  private stepsFor(stores: ReadonlyMap<Store, Store> | undefined): Step[] {
    if (!stores || stores.size === 0) return this.steps
    const same = (other: ReadonlyMap<Store, Store>) =>
      other.size === stores.size && [...stores].every(([from, to]) => other.get(from) === to)
    const known = this.rebound.find((entry) => same(entry.stores))
    if (known) return known.steps
    const steps = this.bind(stores)
    this.rebound.push({ stores: new Map(stores), steps })
    return steps
  }

  /** Forgets the bindings of a store that is about to be destroyed. */
  forget(store: Store): void {
    this.rebound = this.rebound.filter(({ stores }) => ![...stores.values()].includes(store))
  }

  /** Where a value begins, and its bytes where the buffer holds others too. */
  private addressOf(location: Location, stores: ReadonlyMap<Store, Store>): BufferAddress & { readonly size?: number } {
    if (location.kind === 'variable') return { buffer: this.variableBuffer(location.variable, stores), offset: 0 }
    if (location.kind === 'texture') throw new Error(`${this.parts.label}: a mirror has no address`)
    const buffer =
      location.kind === 'buffer' ? this.owned.buffers[location.buffer] : this.inputBuffers.get(location.name)
    if (!buffer) throw new Error(`${this.parts.label}: a planned buffer is missing`)
    return location.kind === 'buffer'
      ? { buffer, offset: location.offset, size: location.bytes }
      : { buffer, offset: 0 }
  }

  private variableBuffer(variable: Variable, stores: ReadonlyMap<Store, Store>): GPUBuffer {
    return (stores.get(variable.store) ?? variable.store).buffer(variable.name)
  }

  private makeUniforms(): GPUBuffer {
    const alignment = this.device.gpu.limits.minUniformBufferOffsetAlignment
    let size = 0
    const parts: { words: Uint32Array; offset: number }[] = []
    for (const command of this.parts.planned.commands) {
      if (command.kind !== 'dispatch' || command.dispatch.uniforms.length === 0) continue
      // A uniform struct's size is a multiple of 16 bytes.
      const words = new Uint32Array(Math.ceil(command.dispatch.uniforms.length / 4) * 4)
      words.set(command.dispatch.uniforms)
      this.uniformOffsets.set(command, { offset: size, size: words.byteLength })
      parts.push({ words, offset: size })
      size = Math.ceil((size + words.byteLength) / alignment) * alignment
    }
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST
    const label = `${this.parts.label} uniforms`
    const buffer = this.device.gpu.createBuffer({ label, size: Math.max(16, size), usage, mappedAtCreation: true })
    const mapped = new Uint32Array(buffer.getMappedRange())
    for (const { words, offset } of parts) mapped.set(words, offset / 4)
    buffer.unmap()
    return buffer
  }

  private bind(stores: ReadonlyMap<Store, Store>): Step[] {
    const { locations, textures } = this.parts.planned
    const locationOf = (key: string) => {
      const location = locations.get(key)
      if (!location) throw new Error(`${this.parts.label}: value ${key} has no location`)
      return location
    }
    const addressOf = (key: string) => this.addressOf(locationOf(key), stores)
    const textureOf = (key: string) => {
      const location = locationOf(key)
      const number = location.kind === 'texture' ? location.texture : -1
      const [texture, mirror] = [this.owned.textures[number], textures[number]]
      if (!texture || !mirror) throw new Error(`${this.parts.label}: mirror ${key} has no texture`)
      return { texture, format: mirror.format }
    }
    const resourceOf = (key: string) =>
      locationOf(key).kind === 'texture' ? textureOf(key).texture.createView() : addressOf(key)
    const steps = this.parts.planned.commands.map((command): Step => {
      if (command.kind !== 'dispatch') {
        const { kind, from, to, bytes } = command
        if (kind === 'mirror') return { kind, from: addressOf(from), ...textureOf(to), bytes }
        return { kind, from: addressOf(from), to: addressOf(to), bytes }
      }
      const pipeline = this.parts.pipelines.get(command)
      if (!pipeline) throw new Error(`${this.parts.label}: no pipeline for ${command.label}`)
      const storage = [...command.reads, ...command.writes].map(resourceOf)
      const uniform = this.uniformOffsets.get(command)
      const entries = storage.map((resource, i): GPUBindGroupEntry => ({ binding: i + 1, resource }))
      if (uniform) entries.unshift({ binding: 0, resource: { buffer: this.uniforms, ...uniform } })
      const layout = this.device.layout(layoutOf(command.dispatch))
      const bindGroup = this.device.gpu.createBindGroup({ label: command.label, layout, entries })
      return { kind: 'dispatch', pipeline, bindGroup, grid: command.dispatch.grid, label: command.label }
    })
    for (const { from, variable } of this.parts.planned.variableWrites) {
      const to = { buffer: this.variableBuffer(variable, stores), offset: 0 }
      steps.push({ kind: 'copy', from: addressOf(from), to, bytes: byteLength(variable.spec) })
    }
    return steps
  }
}
