import type { Device } from './device.js'
import type { Mirror, MirrorFormat } from './mirror.js'
import type { GPUBuffer, GPUTexture } from './webgpu-types.js'

/** What the intermediates of a program lie in. */
export interface ProgramMemory {
  readonly buffers: readonly GPUBuffer[]
  readonly textures: readonly GPUTexture[]
}

/** Buffers of these sizes and textures for these mirrors, all different and of a program's own. */
export const ownMemory = (
  device: Device,
  label: (buffer: number) => string,
  sizes: readonly number[],
  mirrors: readonly Mirror[],
): ProgramMemory => ({
  buffers: sizes.map((bytes, i) => device.storage(label(i), bytes)),
  textures: mirrors.map((mirror, i) => device.mirror(`${label(sizes.length + i)} mirror`, mirror)),
})

export const destroyMemory = ({ buffers, textures }: ProgramMemory): void => {
  for (const resource of [...buffers, ...textures]) resource.destroy()
}

/**
 * Memory for programs that need not keep their intermediates at the same time: runs follow one another on the queue,
 * so all of them may use the same buffers and textures. An output lasts until the next run of any program of the arena.
 */
export class Arena {
  private readonly buffers: Pool<GPUBuffer>
  private readonly textures: Readonly<Record<MirrorFormat, Pool<GPUTexture>>>

  constructor(device: Device, label: string) {
    const texturesOf = (format: MirrorFormat) =>
      new Pool((rank, rows) => device.mirror(`${label} ${format} ${rank}`, { format, rows }))
    this.buffers = new Pool((rank, bytes) => device.storage(`${label} ${rank}`, bytes))
    this.textures = { rgba32float: texturesOf('rgba32float'), rgba16float: texturesOf('rgba16float') }
  }

  /** Programs made before the memory last grew hold some of their own: better destroy them. */
  get hasOutgrown(): boolean {
    return this.pools.some(({ hasOutgrown }) => hasOutgrown)
  }

  private get pools(): (Pool<GPUBuffer> | Pool<GPUTexture>)[] {
    return [this.buffers, ...Object.values(this.textures)]
  }

  /**
   * A buffer of at least so many bytes for each of `sizes`, and a texture of at least so many rows for each mirror, all
   * different. To be given back. Throws where a buffer exceeds the adapter's limit for a binding.
   */
  take(sizes: readonly number[], mirrors: readonly Mirror[]): ProgramMemory {
    const buffers = this.buffers.take(sizes)
    const textures: GPUTexture[] = []
    for (const [format, pool] of Object.entries(this.textures)) {
      const places = mirrors.flatMap((mirror, i) => (mirror.format === format ? i : []))
      const taken = pool.take(places.map((place) => mirrors[place]?.rows ?? 0))
      for (const [i, texture] of taken.entries()) textures[places[i] ?? 0] = texture
    }
    return { buffers, textures }
  }

  give({ buffers, textures }: ProgramMemory): void {
    this.buffers.give(buffers)
    for (const pool of Object.values(this.textures)) pool.give(textures)
  }

  destroy(): void {
    for (const pool of this.pools) pool.destroy()
  }
}

interface Held<R> {
  readonly resource: R
  readonly size: number
  users: number
}

/** Resources of one kind that are taken by size and replaced by larger ones as needed. */
class Pool<R extends { destroy(): void }> {
  /** What is handed out, the largest first. */
  private current: Held<R>[] = []
  /** What was too small, with programs that still use it. */
  private readonly outgrown = new Set<Held<R>>()

  constructor(private readonly make: (rank: number, size: number) => R) {}

  get hasOutgrown(): boolean {
    return this.outgrown.size > 0
  }

  take(sizes: readonly number[]): R[] {
    const order = sizes.map((_, i) => i).sort((a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0))
    const taken = order.map((i, rank) => this.atLeast(rank, sizes[i] ?? 0))
    const result: R[] = []
    for (const [rank, held] of taken.entries()) {
      held.users++
      result[order[rank] ?? 0] = held.resource
    }
    return result
  }

  give(resources: readonly R[]): void {
    const given = new Set(resources)
    for (const held of [...this.current, ...this.outgrown]) if (given.has(held.resource)) held.users--
    for (const held of this.outgrown) {
      if (held.users > 0) continue
      held.resource.destroy()
      this.outgrown.delete(held)
    }
  }

  destroy(): void {
    for (const { resource } of [...this.current, ...this.outgrown]) resource.destroy()
    this.current = []
    this.outgrown.clear()
  }

  private atLeast(rank: number, size: number): Held<R> {
    const known = this.current[rank]
    if (known && known.size >= size) return known
    const made = { resource: this.make(rank, size), size, users: 0 }
    this.current[rank] = made
    if (known && known.users > 0) this.outgrown.add(known)
    else known?.resource.destroy()
    return made
  }
}
