import type { Device } from './device.js'
import type { GPUBuffer } from './webgpu-types.js'

interface Held {
  readonly buffer: GPUBuffer
  readonly bytes: number
  users: number
}

/**
 * Buffers for programs that need not keep their intermediates at the same time: runs follow one another on the queue,
 * so all of them may use the same memory. An output lasts until the next run of any program of the arena.
 */
export class Arena {
  /** The buffers that are handed out, the largest first. */
  private current: Held[] = []
  /** Buffers that were too small, with programs that still use them. */
  private readonly outgrown = new Set<Held>()

  constructor(
    private readonly device: Device,
    private readonly label: string,
  ) {}

  /** Programs made before the buffers last grew hold memory of their own: better destroy them. */
  get hasOutgrown(): boolean {
    return this.outgrown.size > 0
  }

  /**
   * A buffer of at least so many bytes for each of `sizes`, all different. To be given back.
   * Throws where one exceeds the adapter's limit for a binding.
   */
  take(sizes: readonly number[]): GPUBuffer[] {
    const order = sizes.map((_, i) => i).sort((a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0))
    const taken = order.map((i, rank) => this.atLeast(rank, sizes[i] ?? 0))
    const result: GPUBuffer[] = []
    for (const [rank, held] of taken.entries()) {
      held.users++
      result[order[rank] ?? 0] = held.buffer
    }
    return result
  }

  give(buffers: readonly GPUBuffer[]): void {
    const given = new Set(buffers)
    for (const held of [...this.current, ...this.outgrown]) if (given.has(held.buffer)) held.users--
    for (const held of this.outgrown) {
      if (held.users > 0) continue
      held.buffer.destroy()
      this.outgrown.delete(held)
    }
  }

  destroy(): void {
    for (const { buffer } of [...this.current, ...this.outgrown]) buffer.destroy()
    this.current = []
    this.outgrown.clear()
  }

  private atLeast(rank: number, bytes: number): Held {
    const known = this.current[rank]
    if (known && known.bytes >= bytes) return known
    const made = { buffer: this.device.storage(`${this.label} ${rank}`, bytes), bytes, users: 0 }
    this.current[rank] = made
    if (known && known.users > 0) this.outgrown.add(known)
    else known?.buffer.destroy()
    return made
  }
}
