import { Arena } from '../../engine/arena.js'
import type { Device } from '../../engine/device.js'
import type { Program } from '../../engine/program.js'
import type { Data } from '../../engine/shape.js'

/**
 * Programs for images of so many sizes are kept. They share their buffers, so what one holds is its trace and bind
 * groups: with ResNet-101, 64 of them take 167 MiB of host memory.
 */
const programsKept = 64

/** Programs of an evaluation by their keys, in one arena; each run begins when the one before is done. */
export class Programs {
  private readonly programs = new Map<string, Program>()
  private readonly arena: Arena
  /** Settles when the device is done with the run before. */
  private running: Promise<undefined> | undefined

  constructor(private readonly device: Device) {
    this.arena = new Arena(device, 'evaluation buffer')
  }

  async get(key: string, compile: (arena: Arena) => Promise<Program>): Promise<Program> {
    const known = this.programs.get(key)
    if (known) {
      // A map keeps the order of insertion: the latest used is the last.
      this.programs.delete(key)
      this.programs.set(key, known)
      return known
    }
    const program = await compile(this.arena)
    this.programs.set(key, program)
    for (const [other, old] of this.programs) {
      const tooMany = this.programs.size > programsKept
      if (other === key || !(tooMany || this.arena.hasOutgrown)) break
      old.destroy()
      this.programs.delete(other)
    }
    return program
  }

  /** Runs a program. Resolves when the device has begun with it: runs are queued only as fast as they are done. */
  async run(program: Program, inputs: Readonly<Record<string, Data>>): Promise<void> {
    await this.settled()
    program.run(inputs)
    this.running = this.device.gpu.queue.onSubmittedWorkDone()
  }

  /** Resolves when the device is done. */
  async settled(): Promise<void> {
    const { running } = this
    this.running = undefined
    if (running) await this.device.wait(running)
  }

  /** Destroys the programs whose keys `filter` takes. */
  drop(filter: (key: string) => boolean): void {
    for (const [key, program] of this.programs) {
      if (!filter(key)) continue
      program.destroy()
      this.programs.delete(key)
    }
  }

  /** Frees programs and buffers; they are made again when needed. */
  release(): void {
    this.drop(() => true)
    this.arena.destroy()
  }
}
