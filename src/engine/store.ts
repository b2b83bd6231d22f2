import type { Device } from './device.js'
import { byteLength, type Data, type DataOf, elements, type Spec, showSpec, zeros } from './shape.js'
import type { GPUBuffer } from './webgpu-types.js'

/** A named tensor that outlives a run: a parameter, a momentum, a running statistic. */
export class Variable {
  constructor(
    readonly store: Store,
    readonly name: string,
    readonly spec: Spec,
  ) {}
}

/** Owns the buffers of its variables until `destroy`. */
export class Store {
  private readonly variables = new Map<string, Variable>()
  private readonly buffers = new Map<string, GPUBuffer>()
  /** Declared values that no buffer holds yet. */
  private readonly initial = new Map<string, Data>()

  constructor(
    readonly device: Device,
    readonly label: string,
  ) {}

  /**
   * Declares a variable; its elements are `data` or 0. Throws where the name is taken or the length differs. Memory is
   * spent on its first use, so that a model can be compared with a file before.
   */
  declare(name: string, spec: Spec, data?: Data): Variable {
    if (this.variables.has(name)) throw new Error(`store ${this.label}: there is a variable '${name}' already`)
    const variable = new Variable(this, name, spec)
    if (data) checkData(spec, data, `variable '${name}'`)
    this.variables.set(name, variable)
    if (data) this.initial.set(name, data)
    return variable
  }

  get(name: string): Variable {
    const variable = this.variables.get(name)
    if (!variable) throw new Error(`store ${this.label}: no variable '${name}'`)
    return variable
  }

  has(name: string): boolean {
    return this.variables.has(name)
  }

  /** Variables in the order of their declaration. */
  all(): Variable[] {
    return [...this.variables.values()]
  }

  buffer(name: string): GPUBuffer {
    const known = this.buffers.get(name)
    if (known) return known
    const { spec } = this.get(name)
    const buffer = this.device.storage(`${this.label}/${name}`, byteLength(spec))
    this.buffers.set(name, buffer)
    const data = this.initial.get(name)
    this.initial.delete(name)
    if (data) upload(this.device, buffer, spec, data, `variable '${name}'`)
    return buffer
  }

  /** Bytes of all variables. */
  bytes(): number {
    return this.all().reduce((sum, { spec }) => sum + byteLength(spec), 0)
  }

  /** Replaces the elements of a variable. Throws where the length or the element type differs. */
  write(name: string, data: Data): void {
    const { spec } = this.get(name)
    this.initial.delete(name)
    upload(this.device, this.buffer(name), spec, data, `variable '${name}'`)
  }

  /** The elements of one variable, after all runs submitted so far. */
  async read(name: string): Promise<Data> {
    const data = (await this.readAll([name])).get(name)
    if (!data) throw new Error(`store ${this.label}: no variable '${name}'`)
    return data
  }

  /** The elements of several variables, after all runs submitted so far. */
  async readAll(names: readonly string[] = [...this.variables.keys()]): Promise<Map<string, Data>> {
    const ranges = names.map((name) => ({ buffer: this.buffer(name), bytes: byteLength(this.get(name).spec) }))
    const copies = await this.device.read(ranges)
    return new Map(names.map((name, i) => [name, typedArray(copies[i] ?? new ArrayBuffer(0), this.get(name).spec)]))
  }

  /** A second store with the same variables, or those of them that `filter` takes, and a copy of their present values. */
  snapshot(label: string, filter: (variable: Variable) => boolean = () => true): Store {
    const copy = new Store(this.device, label)
    for (const { name, spec } of this.all().filter(filter)) copy.declare(name, spec)
    copy.copyFrom(this)
    return copy
  }

  /** Gives all variables the present values of the variables of the same names in another store. */
  copyFrom(source: Store): void {
    this.device.alive()
    const pairs = this.all().map(
      ({ name, spec }) => [source.buffer(name), this.buffer(name), byteLength(spec)] as const,
    )
    this.device.scoped(() => {
      const encoder = this.device.gpu.createCommandEncoder({ label: `copy to ${this.label}` })
      for (const [from, to, bytes] of pairs) encoder.copyBufferToBuffer(from, 0, to, 0, bytes)
      this.device.gpu.queue.submit([encoder.finish()])
    })
  }

  destroy(): void {
    for (const buffer of this.buffers.values()) buffer.destroy()
    this.buffers.clear()
    this.initial.clear()
    this.variables.clear()
  }
}

/** Throws where host data does not fit a tensor. */
function checkData(spec: Spec, data: Data, what: string): void {
  const expected = zeros(spec.dtype, 0).constructor as { new (): Data }
  if (data.length !== elements(spec.shape) || !(data instanceof expected)) {
    throw new Error(`${what} is ${showSpec(spec)}, not a ${data.constructor.name} of ${data.length} elements`)
  }
}

/**
 * Writes host data into a buffer of a tensor.
 * @param offset in bytes, where the tensor begins in it
 */
export function upload(device: Device, buffer: GPUBuffer, spec: Spec, data: Data, what: string, offset = 0): void {
  device.alive()
  checkData(spec, data, what)
  if (data.byteLength === 0) return
  // Dawn in Node takes no shared memory, and WebGPU copies whole words only.
  const shared = !(data.buffer instanceof ArrayBuffer)
  let bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  if (shared || bytes.length % 4 !== 0) {
    const copy = new Uint8Array(Math.ceil(bytes.length / 4) * 4)
    copy.set(bytes)
    bytes = copy
  }
  device.scoped(() => device.gpu.queue.writeBuffer(buffer, offset, bytes.buffer, bytes.byteOffset, bytes.byteLength))
}

/** Bytes read back, as the typed array of a tensor. */
export function typedArray<D extends Spec['dtype']>(bytes: ArrayBuffer, spec: Spec & { dtype: D }): DataOf[D]
export function typedArray(bytes: ArrayBuffer, { shape, dtype }: Spec): Data {
  const count = elements(shape)
  if (dtype === 'f32') return new Float32Array(bytes, 0, count)
  if (dtype === 'f16') return new Uint16Array(bytes, 0, count)
  return dtype === 'u32' ? new Uint32Array(bytes, 0, count) : new Uint8Array(bytes, 0, count)
}
