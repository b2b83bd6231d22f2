import { Arena } from '../../engine/arena.js'
import type { Device } from '../../engine/device.js'
import type { FirstNonFinite } from '../../engine/passes/trace-nan.js'
import { printProgram } from '../../engine/print-program.js'
import { compile, type Program } from '../../engine/program.js'
import type { Data } from '../../engine/shape.js'
import { Store } from '../../engine/store.js'
import type { Work } from '../../engine/work.js'
import { castCall } from '../../kernels/pointwise.js'
import { type SegmentationModel, stageOf } from '../../models/segmentation.js'
import { type Batch, type BatchLayout, imagesOf } from '../data/batch.js'
import { methodOf } from '../methods/index.js'
import type { Draws, MethodEvent, MethodRun, MetricSpec, Prepared, Settings, StepInfo } from '../methods/method.js'
import { batchStore, contextOf } from './context.js'
import { compileFurther } from './further-programs.js'
import { LossScale } from './loss-scale.js'
import { learningRateAt } from './lr-schedule.js'
import { partOf, partsOf } from './micro-batches.js'
import { createState, type Optimizer, optimizerOf } from './optimizer.js'
import type { TrainerOptions, TrainerSettings } from './options.js'
import { type SavedStore, storesOf, type Trained } from './saved-store.js'
import { continues, declareSums, detailPrefix, type StepProgram, stepInParts, wholeStep } from './step-programs.js'
import { type StepInputs, StepRecord } from './step-record.js'
import type { StepResult, SubmittedStep } from './step-result.js'
import { TrainingPasses } from './training-passes.js'

/** A kind of steps. */
interface Phase {
  readonly bodies: readonly StepProgram[]
  /** Of the bodies: losses and update of the batch, or the losses of a part and the update. */
  readonly programs: readonly [Program, ...Program[]]
}

/** Trains the models of a method; the state of a training between its steps. */
export class Trainer {
  /** Steps done. Set it to resume from a checkpoint. */
  iteration = 0
  /** Steps done that were not skipped. Set it as well. */
  updates = 0
  /** In half precision: steps that were skipped, once that is known. */
  private skipped: number | undefined
  /** What the step computes that was submitted last. */
  private previous: Promise<StepResult> | undefined
  /** How parameters follow their gradients. */
  readonly optimizer: Optimizer
  private readonly record: StepRecord | undefined
  /** Scalars that a step computes: the total loss, and what is shown beside it. */
  private readonly metricNames: readonly string[]
  /** In half precision, of the loss scale. */
  private readonly scalingNames: readonly string[]
  /** Weights and statistics of the trained models, in the order in which a step checks them. */
  private readonly variableNames: readonly string[]
  /** Fields of the batch that hold labels. */
  private readonly labelFields: readonly string[]

  private constructor(
    readonly settings: TrainerSettings,
    readonly options: TrainerOptions,
    /** What a batch holds. */
    readonly layout: BatchLayout,
    /** What the method works with. */
    readonly run: MethodRun,
    private readonly trained: readonly Trained[],
    /** In half precision. */
    readonly lossScale: LossScale | undefined,
    /** Fields of the step's batch, or of the part of it that is at hand, which all programs of the step read. */
    private readonly batch: Store,
    private readonly workspace: Store,
    /** The programs of a step follow one another, in the same memory. */
    private readonly arena: Arena,
    /** Where it is taken in parts: sums of gradients and metrics. */
    private readonly sums: Store | undefined,
    private readonly passes: TrainingPasses,
    /** By the names of the method's phases. */
    private readonly phases: ReadonlyMap<string, Phase>,
    private readonly others: readonly Program[],
  ) {
    this.optimizer = optimizerOf(settings)
    const ofModels = trained.length > 1 ? trained.map(({ model }) => `grad_norm/${model.store.label}`) : []
    const norm = options.gradNorm ? ['grad_norm', ...ofModels] : []
    this.metricNames = ['total_loss', ...run.metrics.map(({ name }) => name), ...norm]
    this.scalingNames = options.amp ? ['loss_scale', 'skipped_steps'] : []
    this.variableNames = run.trained.flatMap(({ store }, i) =>
      store.all().map(({ name }) => (i === 0 ? name : `${store.label}/${name}`)),
    )
    const fields = layout.flatMap(({ fields }) => Object.entries(fields))
    this.labelFields = fields.filter(([, { view }]) => view === 'label').map(([name]) => name)
    if (!options.keepBefore) return
    const changed = [
      ...trained.flatMap(({ model, state }) => [model.store, ...state]),
      ...Object.values(run.stores ?? {}),
      ...(lossScale ? [lossScale.store] : []),
    ]
    this.record = new StepRecord(changed, [batch, workspace], this.parts)
  }

  /** See `createTrainer`. */
  static async create(
    device: Device,
    first: SegmentationModel,
    settings: TrainerSettings,
    options: TrainerOptions,
  ): Promise<Trainer> {
    const { gradNorm = false, amp, exchange, onProgress, signal } = options
    const method = methodOf(settings.method)
    // The configuration was checked by a schema with the keys of all methods.
    const own = settings as TrainerSettings & Settings<typeof method.keys>
    const layout = method.layout(own)
    const parts = partsOf(settings, options)
    const { labeled, unlabeled } = options
    const ofPart = { ...options, labeled: labeled / parts, unlabeled: unlabeled / parts }
    const batch = batchStore(device, layout, ofPart)
    const workspace = new Store(device, 'workspace')
    const passes = new TrainingPasses(workspace, settings.sync_batchnorm === false ? undefined : exchange)
    const run = method.create(contextOf(first, own, ofPart, batch, workspace, passes))
    const optimizer = optimizerOf(settings)
    const trained = run.trained.map((model, i) => {
      const state = createState(optimizer, model.groups, i === 0 ? '' : `${model.store.label} `)
      return { model, groups: model.groups, state }
    })
    const lossScale = amp ? new LossScale(new Store(device, 'loss scale')) : undefined
    const context = { name: method.name, run, passes, optimizer, optimized: trained, lossScale, gradNorm, exchange }
    const sums = parts > 1 ? declareSums(context, new Store(device, 'sums over parts')) : undefined
    const arena = new Arena(device, 'training buffer')
    const shared = { arena, autocast: amp ? castCall : undefined, onProgress, signal }
    try {
      const stages = Object.assign({}, ...run.trained.map((model) => model.stages))
      const recompute = stageOf({ stages }, settings.activation_checkpointing ?? [])
      const phases = new Map<string, Phase>()
      for (const phase of run.phases ?? ['']) {
        const ofPhase = { ...context, phase }
        const bodies = sums ? stepInParts(ofPhase, parts, sums) : [wholeStep(ofPhase)]
        const programs: Program[] = []
        for (const { label, specs, body } of bodies) {
          programs.push(await compile(device, specs, body, { label, recompute, ...shared }))
        }
        phases.set(phase, { bodies, programs: programs as [Program, ...Program[]] })
      }
      const others = await compileFurther(device, run, shared)
      const stores = [lossScale, batch, workspace] as const
      const rest = [arena, sums?.store, passes, phases, others] as const
      return new Trainer(settings, options, layout, run, trained, ...stores, ...rest)
    } catch (error) {
      arena.destroy()
      throw error
    }
  }

  /** The first model that is trained. */
  get model(): SegmentationModel {
    return firstOf(this.run.trained)
  }

  /** What the steps compute beside the total loss, and how it is shown. */
  get metrics(): readonly MetricSpec[] {
    return this.run.metrics
  }

  /** What the optimizer keeps for the first model, such as momentum buffers, under the names of its parameters. */
  get optimizerState(): readonly Store[] {
    return firstOf(this.trained).state
  }

  /** What a checkpoint holds beside the first model: state of the optimizer, further models, stores of the method. */
  get savedStores(): SavedStore[] {
    return storesOf(this.trained, this.optimizer, this.run.stores)
  }

  get iterations(): number {
    return this.settings.epochs * this.options.iterationsPerEpoch
  }

  /** Epoch of the next step, from 0. */
  get epoch(): number {
    return Math.floor(this.iteration / this.options.iterationsPerEpoch)
  }

  /** Learning rates of the next step: of the backbone and of everything else. */
  get learningRates(): [number, number] {
    const { lr, lr_schedule: schedule } = this.settings
    const at = [lr, this.iteration, this.iterations] as const
    const rate = (schedule ? undefined : this.run.learningRate?.(...at)) ?? learningRateAt(...at, schedule)
    return [rate, rate * this.settings.lr_multi]
  }

  /** Images that a step reads. */
  get imagesPerStep(): number {
    return this.layout.reduce((sum, stream) => sum + imagesOf(stream, this.options[stream.split]), 0)
  }

  /** Parts in which a step takes its batch. */
  get parts(): number {
    return partsOf(this.settings, this.options)
  }

  /** All models that the method made, the first one first. */
  get models(): readonly SegmentationModel[] {
    return this.passes.models
  }

  private get allPrograms(): readonly Program[] {
    return [...this.phases.values()].flatMap(({ programs }) => programs)
  }

  /** The programs of the phase that takes the most memory. */
  private get largest(): Phase['programs'] {
    const planned = ({ programs: [losses] }: Phase) => losses.memory.planned
    const [largest] = [...this.phases.values()].sort((a, b) => planned(b) - planned(a))
    if (!largest) throw new Error('a method has at least one kind of steps')
    return largest.programs
  }

  /** What the programs of the steps compute, after fusion. */
  get nodes(): Program['nodes'] {
    return this.allPrograms.flatMap(({ nodes }) => nodes)
  }

  /** The host calls of the programs of the steps. */
  get hostCalls(): readonly string[] {
    return this.allPrograms.flatMap(({ hostCalls }) => hostCalls)
  }

  /** The programs of the steps as text. */
  get text(): string {
    return [...this.allPrograms, ...this.others].map(printProgram).join('\n')
  }

  /**
   * Memory of a step's programs in bytes, see `MemorySummary`, and what all runs of the step dispatch, in the phase that
   * takes the most.
   */
  get memory(): Program['memory'] {
    const [losses, ...rest] = this.largest
    const sum = (count: (memory: Program['memory']) => number) =>
      rest.reduce((total, { memory }) => total + count(memory), this.parts * count(losses.memory))
    const ofStep = { dispatches: sum(({ dispatches }) => dispatches), hostCalls: sum(({ hostCalls }) => hostCalls) }
    return { ...losses.memory, ...ofStep }
  }

  /** What the programs of such a step do, further programs of the method aside. */
  get work(): Work {
    const [losses, update] = this.largest.map(({ work }) => work)
    const sum = (what: keyof Work) => this.parts * (losses?.[what] ?? 0) + (update?.[what] ?? 0)
    return { bytes: sum('bytes'), multiplyAdds: sum('multiplyAdds') }
  }

  private get at(): StepInfo {
    const { iterationsPerEpoch } = this.options
    const { epochs } = this.settings
    return { iteration: this.iteration, batchIndex: this.iteration, epoch: this.epoch, epochs, iterationsPerEpoch }
  }

  /**
   * Tells the method that an epoch begins. Call it before the first step of one.
   * @param newBest whether the epoch before reached a new best validation result
   * @returns what the method did then
   */
  beginEpoch(newBest: boolean): readonly MethodEvent[] {
    return this.run.beginEpoch?.({ ...this.at, newBest }) ?? []
  }

  /**
   * One iteration: forward, losses, gradients, update. The learning rates follow after it.
   * @param draws the random choices for each part of the batch, the method's and those of `TrainingPasses`; by default
   * those that seed and iteration give
   */
  async step(batch: Batch, ...draws: readonly Draws[]): Promise<StepResult> {
    return (await this.submit(batch, ...draws)).result
  }

  /**
   * The same, without waiting for the device: the next step may be submitted before what this one computed is there, so
   * that the device need not wait for the host between them.
   */
  async submit(batch: Batch, ...draws: readonly Draws[]): Promise<SubmittedStep> {
    const { run, parts, passes } = this
    const phase = run.phase?.(this.at) ?? firstOf([...this.phases.keys()])
    const { programs } = this.programsOf(phase)
    const [backbone, head] = this.learningRates
    // Which update this is depends on whether the step before was skipped.
    if (this.lossScale && Object.keys(this.optimizer.inputs).length > 0) await this.previous
    const ofOptimizer = this.optimizer.values(this.updates + 1)
    const rates = { lr_backbone: Float32Array.of(backbone), lr_head: Float32Array.of(head), ...ofOptimizer }
    this.skipped ??= (await this.lossScale?.state())?.skippedSteps ?? 0
    this.record?.begin(phase)
    let prepared: Prepared = { inputs: {} }
    for (let part = 0; part < parts; part++) {
      const at = { ...this.at, batchIndex: this.iteration * parts + part }
      for (const { name, spec } of this.batch.all()) this.batch.write(name, partOf(batch[name], spec, part))
      passes.draw(phase, this.settings.seed, at.batchIndex, draws[part] ?? {})
      prepared = run.prepare?.(at, draws[part] ?? run.draw?.(at) ?? {}) ?? prepared
      const begun = parts > 1 ? { [continues]: Float32Array.of(part === 0 ? 0 : 1) } : rates
      await this.runProgram(programs, 0, { ...begun, ...prepared.inputs })
    }
    if (parts > 1) await this.runProgram(programs, 1, run.afterUpdate ? { ...rates, ...prepared.inputs } : rates)
    this.iteration++
    if (!this.lossScale) this.updates++
    passes.count(phase, parts)
    const known = { lr_used: [backbone, head], withoutLabels: this.hasNoLabels(batch) } as const
    const result = this.read(programs, prepared, known, this.previous)
    // Whoever waits for it hears of a failure; before that it is nobody's.
    result.catch(() => {})
    this.previous = result
    return { iteration: this.iteration, result }
  }

  /** What the step computed whose programs ran last. */
  private async read(
    programs: Phase['programs'],
    { values = {}, absent = [] }: Prepared,
    known: Pick<StepResult, 'lr_used' | 'withoutLabels'>,
    previous: Promise<StepResult> | undefined,
  ): Promise<StepResult> {
    const { scalingNames: scaling } = this
    const last = programs.at(-1)
    const metrics = this.metricNames.filter((name) => last?.delivers(name))
    const [read = []] = await Promise.all([last?.readAll([...metrics, ...scaling, 'non_finite']), previous])
    const counts = read.at(-1) ?? []
    const scalars = [...metrics, ...scaling].map((name, i) => [name, read[i]?.[0] ?? Number.NaN] as const)
    const scales: Readonly<Record<string, number>> = Object.fromEntries(scalars.slice(metrics.length))
    if (this.lossScale) {
      if (scales.skipped_steps === this.skipped) this.updates++
      this.skipped = scales.skipped_steps
    }
    return {
      metrics: {
        ...Object.fromEntries(scalars.slice(0, metrics.length).filter(([name]) => !absent.includes(name))),
        ...values,
      },
      ...scales,
      ...known,
      nonFinite: this.variableNames.filter((_, i) => counts[i] !== 0),
    }
  }

  private programsOf(phase: string): Phase {
    const found = this.phases.get(phase)
    if (!found) throw new Error(`the method ${this.settings.method} has no phase '${phase}'`)
    return found
  }

  private async runProgram(programs: Phase['programs'], index: number, inputs: StepInputs): Promise<void> {
    this.record?.note(index, inputs)
    await programs[index]?.runAsync(inputs)
  }

  /**
   * What the method calls details, by name, of the last step.
   * @param phase that of the step, where the method has several
   * @param names those to be read
   */
  async details(names: readonly string[], phase = ''): Promise<Record<string, Data>> {
    const [program] = this.programsOf(phase).programs
    const read = await program.readAll(names.map((name) => detailPrefix + name))
    return Object.fromEntries(names.map((name, i) => [name, read[i] as Data]))
  }

  private hasNoLabels(batch: Batch): boolean {
    const { ignore_index: ignore } = this.settings
    return this.labelFields.every((name) => !batch[name]?.some((label) => label !== ignore))
  }

  /**
   * Repeats the last step operator by operator, and finds the first one whose result is not finite. The weights are then
   * those before the step, and the trainer is of no further use.
   *
   * @returns undefined where all results are finite this time: fused kernels round differently
   * @throws Error without the option `keepBefore`, or before the first step
   */
  async firstNonFinite(): Promise<FirstNonFinite | undefined> {
    const { record, others, arena } = this
    if (!record) throw new Error('there is no step to repeat: it takes the option keepBefore')
    // The memory of the step is needed for the step that counts.
    for (const each of [...others, ...this.allPrograms]) each.destroy()
    arena.destroy()
    const bodies = this.phases.get(record.phase)?.bodies ?? []
    return record.firstNonFinite(bodies, this.options.amp ? castCall : undefined)
  }

  /** Frees everything but the first model. */
  destroy(): void {
    this.run.destroy?.()
    for (const program of [...this.others, ...this.allPrograms]) program.destroy()
    this.arena.destroy()
    for (const { store } of this.savedStores) store.destroy()
    this.workspace.destroy()
    this.batch.destroy()
    this.sums?.destroy()
    this.record?.destroy()
    this.lossScale?.destroy()
  }
}

function firstOf<T>(list: readonly T[]): T {
  const [first] = list
  if (first === undefined) throw new Error('a method trains at least one model')
  return first
}
