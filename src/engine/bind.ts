import type { ProgramMemory } from './arena.js'
import type { Device, Layout } from './device.js'
import type { AnyStep, HostBegin, HostValue } from './host-calls.js'
import type { Dispatch, Operand } from './kernel.js'
import type { Command, HostBeginCommand } from './lower.js'
import type { Location, Plan } from './plan.js'
import type { BufferAddress } from './replay.js'
import { byteLength, type Spec } from './shape.js'
import type { Store, Variable } from './store.js'
import type { GPUBuffer, GPUComputePipeline } from './webgpu-types.js'

/** What a dispatch binds. */
export const layoutOf = ({ uniforms, reads, writes }: Dispatch): Layout => {
  const read = ({ mirror }: Operand) => (mirror ? { rgba32float: 'f', rgba16float: 'h' }[mirror] : 'r')
  return `${uniforms.length > 0 ? 'u' : ''}${reads.map(read).join('')}${'w'.repeat(writes.length)}`
}

/** One buffer with the uniforms of all dispatches. */
export interface Uniforms {
  readonly buffer: GPUBuffer
  readonly ranges: ReadonlyMap<Command, { readonly offset: number; readonly size: number }>
}

export function makeUniforms(device: Device, label: string, commands: readonly Command[]): Uniforms {
  const alignment = device.gpu.limits.minUniformBufferOffsetAlignment
  let size = 0
  const parts: { words: Uint32Array; offset: number }[] = []
  const ranges = new Map<Command, { offset: number; size: number }>()
  for (const command of commands) {
    if (command.kind !== 'dispatch' || command.dispatch.uniforms.length === 0) continue
    // A uniform struct's size is a multiple of 16 bytes.
    const words = new Uint32Array(Math.ceil(command.dispatch.uniforms.length / 4) * 4)
    words.set(command.dispatch.uniforms)
    ranges.set(command, { offset: size, size: words.byteLength })
    parts.push({ words, offset: size })
    size = Math.ceil((size + words.byteLength) / alignment) * alignment
  }
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST
  const buffer = device.gpu.createBuffer({
    label: `${label} uniforms`,
    size: Math.max(16, size),
    usage,
    mappedAtCreation: true,
  })
  const mapped = new Uint32Array(buffer.getMappedRange())
  for (const { words, offset } of parts) mapped.set(words, offset / 4)
  buffer.unmap()
  return { buffer, ranges }
}

/** What the commands of a program are bound to, besides stores. */
export interface Bindings {
  readonly label: string
  readonly planned: Plan
  readonly pipelines: ReadonlyMap<Command, GPUComputePipeline>
  /** What its intermediates lie in. */
  readonly memory: ProgramMemory
  readonly inputs: ReadonlyMap<string, GPUBuffer>
  readonly uniforms: Uniforms
}

const variableBuffer = (variable: Variable, stores: ReadonlyMap<Store, Store>): GPUBuffer =>
  (stores.get(variable.store) ?? variable.store).buffer(variable.name)

/**
 * The bytes of a location.
 * @param stores to use instead of those that were traced
 */
export function addressOf(
  { label, memory, inputs }: Pick<Bindings, 'label' | 'memory' | 'inputs'>,
  location: Location,
  stores: ReadonlyMap<Store, Store>,
): BufferAddress & { readonly size: number } {
  if (location.kind === 'texture') throw new Error(`${label}: a mirror has no address`)
  const { offset, bytes: size } = location
  if (location.kind === 'variable') return { buffer: variableBuffer(location.variable, stores), offset, size }
  const buffer = location.kind === 'buffer' ? memory.buffers[location.buffer] : inputs.get(location.name)
  if (!buffer) throw new Error(`${label}: a planned buffer is missing`)
  return { buffer, offset, size }
}

/** The steps of a program, which replay its commands and then write its variables. */
export function bindSteps(device: Device, bindings: Bindings, stores: ReadonlyMap<Store, Store>): AnyStep[] {
  const { label, planned, pipelines, memory, uniforms } = bindings
  const locationOf = (key: string) => {
    const location = planned.locations.get(key)
    if (!location) throw new Error(`${label}: value ${key} has no location`)
    return location
  }
  const addressed = (key: string, further = 0) => {
    const address = addressOf(bindings, locationOf(key), stores)
    return { ...address, offset: address.offset + further }
  }
  const textureOf = (key: string) => {
    const location = locationOf(key)
    const number = location.kind === 'texture' ? location.texture : -1
    const [texture, mirror] = [memory.textures[number], planned.textures[number]]
    if (!texture || !mirror) throw new Error(`${label}: mirror ${key} has no texture`)
    return { texture, format: mirror.format }
  }
  const resourceOf = (key: string) =>
    locationOf(key).kind === 'texture' ? textureOf(key).texture.createView() : addressed(key)
  const hostValues = (keys: readonly string[], specs: readonly Spec[]): HostValue[] =>
    keys.map((key, i) => ({ ...addressed(key), spec: specs[i] ?? { shape: [], dtype: 'f32' } }))
  const begun = new Map<HostBeginCommand, HostBegin>()
  const stepOf = (command: Command): AnyStep => {
    switch (command.kind) {
      case 'host begin': {
        const { call, reads, specs } = command
        const begin: HostBegin = { kind: 'host begin', call, from: hostValues(reads, specs) }
        begun.set(command, begin)
        return begin
      }
      case 'host end': {
        const begin = begun.get(command.begin)
        if (!begin) throw new Error(`${label}: the host call ${command.label} ends before it begins`)
        return { kind: 'host end', begin, to: hostValues(command.writes, command.specs) }
      }
      case 'mirror':
        return { kind: 'mirror', from: addressed(command.from), ...textureOf(command.to), bytes: command.bytes }
      case 'copy': {
        const { from, to, fromOffset, toOffset, bytes } = command
        return { kind: 'copy', from: addressed(from, fromOffset), to: addressed(to, toOffset), bytes }
      }
      case 'clear':
        return { kind: 'clear', to: addressed(command.to, command.toOffset), bytes: command.bytes }
      case 'dispatch': {
        const { dispatch, reads, writes } = command
        const pipeline = pipelines.get(command)
        if (!pipeline) throw new Error(`${label}: no pipeline for ${command.label}`)
        const storage = [...reads, ...writes].map(resourceOf)
        const uniform = uniforms.ranges.get(command)
        const entries = storage.map((resource, i): GPUBindGroupEntry => ({ binding: i + 1, resource }))
        if (uniform) entries.unshift({ binding: 0, resource: { buffer: uniforms.buffer, ...uniform } })
        const layout = device.layout(layoutOf(dispatch))
        const bindGroup = device.gpu.createBindGroup({ label: command.label, layout, entries })
        return { kind: 'dispatch', pipeline, bindGroup, grid: dispatch.grid, label: command.label }
      }
    }
  }
  const writes = planned.variableWrites.map(({ from, variable }): AnyStep => {
    const to = { buffer: variableBuffer(variable, stores), offset: 0 }
    return { kind: 'copy', from: addressed(from), to, bytes: byteLength(variable.spec) }
  })
  return [...planned.commands.map(stepOf), ...writes]
}
