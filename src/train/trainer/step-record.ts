import type { Cast } from '../../engine/passes/autocast.js'
import { type FirstNonFinite, NanTracer } from '../../engine/passes/trace-nan.js'
import { compile, type Program } from '../../engine/program.js'
import { Store } from '../../engine/store.js'
import { countNonFinite } from '../../kernels/finite.js'
import type { StepProgram } from './step-programs.js'

export type StepInputs = Parameters<Program['run']>[0]

/** One run of a program. */
interface RecordedRun {
  readonly inputs: StepInputs
  /** What it read, where the next part of the batch has taken its place. */
  readonly stores?: ReadonlyMap<Store, Store>
}

/** What a step began with, so that it can be repeated. */
export class StepRecord {
  private readonly changed: readonly { readonly store: Store; readonly copy: Store }[]
  private readonly ofParts: readonly ReadonlyMap<Store, Store>[]
  /** Of each program of the step, in the order of the programs. */
  private runs: RecordedRun[][] = []
  /** Which of the method's phases it was. */
  phase = ''

  /**
   * @param changed what a step changes
   * @param replaced what each part of a batch replaces
   * @param parts of a batch
   */
  constructor(changed: readonly Store[], replaced: readonly Store[], parts: number) {
    this.changed = changed.map((store) => ({ store, copy: store.snapshot(`${store.label} before the step`) }))
    // A batch that is taken whole is still there.
    this.ofParts = Array.from({ length: parts > 1 ? parts : 0 }, (_, part) => {
      return new Map(replaced.map((store) => [store, store.snapshot(`${store.label} of part ${part} before the step`)]))
    })
  }

  /** Before a step of a phase. */
  begin(phase: string): void {
    this.phase = phase
    for (const { store, copy } of this.changed) copy.copyFrom(store)
    this.runs = []
  }

  /** Before each run of program number `program`. */
  note(program: number, inputs: StepInputs): void {
    const before = this.runs[program] ?? []
    const stores = program === 0 ? this.ofParts[before.length] : undefined
    for (const [store, copy] of stores ?? []) copy.copyFrom(store)
    this.runs[program] = [...before, { inputs, ...(stores ? { stores } : {}) }]
  }

  /**
   * Repeats the last step operator by operator, and finds the first one whose result is not finite. What a step changes is
   * then as it was before it.
   *
   * @returns undefined where all results are finite this time: fused kernels round differently
   */
  async firstNonFinite(
    programs: readonly StepProgram[],
    autocast: Cast | undefined,
  ): Promise<FirstNonFinite | undefined> {
    if (this.runs.length === 0) throw new Error('there is no step to repeat: none was done')
    this.restore()
    let found: FirstNonFinite | undefined
    for (const [i, program] of programs.entries()) found ??= await this.firstOf(program, this.runs[i] ?? [], autocast)
    this.restore()
    return found
  }

  private async firstOf(
    { specs, body }: StepProgram,
    runs: readonly RecordedRun[],
    autocast: Cast | undefined,
  ): Promise<FirstNonFinite | undefined> {
    const [first] = this.changed
    if (!first) throw new Error('a step changes something')
    const { device } = first.store
    const counts = new Store(device, 'counts')
    const tracer = new NanTracer(counts, countNonFinite)
    const options = { label: 'step that is looked into', pass: tracer.pass, autocast, optimize: false, share: true }
    const counting = await compile(device, specs, body, options)
    let found: FirstNonFinite | undefined
    for (const { inputs, stores } of runs) {
      if (found) break
      await counting.runAsync(inputs, stores ? { stores } : {})
      found = await tracer.first()
    }
    counting.destroy()
    counts.destroy()
    return found
  }

  private restore(): void {
    for (const { store, copy } of this.changed) store.copyFrom(copy)
  }

  destroy(): void {
    for (const { copy } of this.changed) copy.destroy()
    for (const copies of this.ofParts) for (const copy of copies.values()) copy.destroy()
  }
}
