import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { distributedOrder, type RankOf, samplesPerRank } from '../distributed/sampler.js'
import { UserError } from '../error.js'
import '../io/decoders.js'
import {
  type Batch,
  type BatchLayout,
  batchBytes,
  batchViews,
  imagesOf,
  mixes,
  type StreamSpec,
  takes,
} from './batch.js'
import type { Sample } from './dataset.js'
import { DecodedCache, imageKey } from './decoded-cache.js'
import { orderOf, sampleAt } from './fill-batch.js'
import { labelRules } from './label-rules.js'
import { JobTable, PendingBatch, type PostedTask, taskOf, type UnreadableFile } from './loader-jobs.js'
import type { Reply, Task, WorkerSettings } from './loader-worker.js'
import { Quarantine } from './quarantine.js'
import type { LoaderSettings } from './settings.js'

export interface LoaderOptions {
  config: LoaderSettings
  labeled: readonly Sample[]
  /** Where no stream takes unlabeled images, the list gives the length of an epoch alone, and may be empty. */
  unlabeled: readonly Sample[]
  seed: number
  /** Which of several ranks reads: its places of orders that are common to all, see `distributedOrder`. */
  ranks?: RankOf | undefined
  /** Threads; the batches do not depend on their number. Default: one core is left free, at most eight are used. */
  workers?: number
  /** Processes that share the cores of this machine; by default it is this one alone. */
  sharing?: number
  /** What a batch holds. */
  layout: BatchLayout
  /** The images of which an epoch is one pass. Default: the unlabeled ones, where there are any. */
  epochOf?: StreamSpec['split'] | undefined
  /** Decoded images are kept in memory up to this size. Default: 512 MiB. */
  cacheBytes?: number
  /**
   * So many files may be unreadable. Each is left out, and the next image of its list that can be read takes its place,
   * with the random choices of that place: the batches depend on which files can be read, and on nothing else. Default: 0.
   */
  maxUnreadable?: number
  /** Receives every file that is left out, once, before the first batch that lacks it. */
  onUnreadable?: (file: UnreadableFile) => void
  /** Receives a line that says that a thread has ended and what becomes of its tasks. */
  onCrash?: (line: string) => void
}

export interface Loader {
  readonly iterationsPerEpoch: number
  /** Threads. */
  readonly workers: number
  /**
   * The batches of an epoch (counted from 0), from the iteration `start` on. A batch is valid until the next one is
   * requested. One epoch can be read at a time; it may be left early.
   * @throws UserError naming the file that cannot be read, where those before it were as many as are allowed
   */
  epoch(epoch: number, start?: number): AsyncIterable<Batch>
  /** What the batch that was asked for lacks: which thread reads which file. */
  waitingFor(): string
  /** Ends the threads. */
  close(): Promise<void>
}

/** Batches in memory: one in use, the others being filled. */
const slotCount = 3
const defaultCacheBytes = 512 * 2 ** 20

/** So many threads may end by themselves. */
const maxCrashes = 10
/** Milliseconds until a thread is left to the end of the process: one that waits for a file cannot be ended. */
const closingTime = 2000

class ThreadedLoader implements Loader {
  readonly iterationsPerEpoch: number
  /** Repeated to the length of an epoch. */
  private readonly labeled: Sample[]
  private readonly threads: Worker[]
  private readonly settings: Omit<WorkerSettings, 'thread'>
  private readonly slots: { buffer: SharedArrayBuffer; batch: Batch }[]
  private readonly jobs = new JobTable()
  private readonly quarantine: Quarantine
  private readonly cache: DecodedCache
  /** The batch that was asked for. */
  private awaited: PendingBatch | undefined
  private readonly unreadable = new Set<string>()
  private readonly reported = new Set<string>()
  private crashes = 0
  private reading = false
  private failure: Error | null = null
  private closing = false

  constructor(private readonly options: LoaderOptions) {
    const { config, labeled, unlabeled, layout, seed } = options
    const { batch_size: batchSize, crop_size: size } = config
    if (labeled.length === 0) throw new UserError('there are no labeled images: give a list with --labeled-id-path')
    if (takes(layout, 'unlabeled') && unlabeled.length === 0) {
      throw new UserError(`the method ${config.method} needs unlabeled images: give a list with --unlabeled-id-path`)
    }
    const length = (options.epochOf === 'labeled' ? 0 : unlabeled.length) || labeled.length
    this.labeled = Array.from(
      { length: options.ranks ? length : Math.max(length, labeled.length) },
      (_, i) => labeled[i % labeled.length] as Sample,
    )
    const { ranks } = options
    this.iterationsPerEpoch = Math.floor((ranks ? samplesPerRank(length, ranks.size) : length) / batchSize)
    if (this.iterationsPerEpoch === 0) {
      const batch = ranks ? `batches of ${batchSize} on ${ranks.size} ranks` : `a batch of ${batchSize}`
      throw new UserError(`${length} images do not fill ${batch}: add some, or lower batch_size`)
    }
    this.cache = new DecodedCache(options.cacheBytes ?? defaultCacheBytes)
    this.slots = Array.from({ length: slotCount }, () => {
      const buffer = new SharedArrayBuffer(batchBytes(layout, batchSize, size))
      return { buffer, batch: batchViews(buffer, layout, batchSize, size) }
    })
    this.settings = { size, batchSize, layout, rules: labelRules(config), seed }
    const count =
      options.workers ??
      config.workers ??
      Math.min(8, Math.max(1, Math.floor(availableParallelism() / (options.sharing ?? 1)) - 1))
    this.threads = Array.from({ length: count }, (_, i) => this.startWorker(i + 1))
    this.quarantine = new Quarantine(count + 1, (thread) => this.startWorker(thread))
  }

  get workers(): number {
    return this.threads.length
  }

  async *epoch(epoch: number, start = 0): AsyncGenerator<Batch, void, undefined> {
    if (this.failure) throw this.failure
    if (this.reading) throw new Error('an epoch of this loader is being read already')
    this.reading = true
    // Waiting for a batch keeps the process alive, an idle loader does not.
    for (const worker of this.threads) worker.ref()
    const orders = this.drawOrders(epoch)
    const queue: PendingBatch[] = []
    try {
      for (let i = start, next = start; i < this.iterationsPerEpoch; i++) {
        for (; next < this.iterationsPerEpoch && next < i + slotCount; next++)
          queue.push(this.submit(epoch, next, orders))
        this.awaited = queue[0] as PendingBatch
        await this.awaited.done
        this.reportUnreadable(this.awaited)
        this.awaited = undefined
        yield (this.slots[i % slotCount] as { batch: Batch }).batch
        queue.shift()
      }
    } finally {
      this.awaited = undefined
      for (const batch of queue) batch.cancel()
      this.quarantine.leaveCutShort()
      await Promise.all(queue.map((batch) => batch.quiet))
      this.quarantine.clear()
      for (const worker of this.threads) worker.unref()
      this.reading = false
    }
  }

  waitingFor(): string {
    const missing = (this.awaited?.jobs ?? []).flatMap(({ job, replied }) =>
      job.tasks.flatMap(({ image }, i) => {
        if (replied.has(i)) return []
        const thread = Atomics.load(job.takers, i)
        return [thread === 0 ? `${image} (not begun)` : `${image} (thread ${thread})`]
      }),
    )
    return missing.length === 0 ? 'the next batch' : `images to be read: ${missing.join(', ')}`
  }

  async close(): Promise<void> {
    this.closing = true
    this.fail(new Error('the loader is closed'))
    const all = [...this.threads, ...this.quarantine.threads]
    let timer: NodeJS.Timeout | undefined
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, closingTime)
    })
    await Promise.race([Promise.all(all.map((worker) => worker.terminate())), late])
    clearTimeout(timer)
  }

  private startWorker(thread: number): Worker {
    const workerData: WorkerSettings = { ...this.settings, thread }
    const worker = new Worker(new URL('./loader-worker.js', import.meta.url), { workerData })
    let reason: string | undefined
    worker.on('message', (reply: Reply) => this.receive(reply))
    worker.on('error', (error) => {
      reason = error.message
    })
    worker.on('exit', (code) => this.restart(worker, thread, reason ?? `exit code ${code}`))
    if (!this.reading) worker.unref()
    return worker
  }

  /** A thread has ended: another takes its place, and its tasks are done again in quarantine. */
  private restart(worker: Worker, thread: number, reason: string): void {
    const isQuarantined = this.quarantine.has(worker)
    if ((!isQuarantined && this.threads[thread - 1] !== worker) || this.closing || this.failure) return
    const inFlight = this.jobs.inFlight(thread)
    const files = inFlight.map((task) => taskOf(task).image).join(', ')
    if (++this.crashes > maxCrashes) {
      this.fail(new Error(`the loader's threads ended ${this.crashes} times, the last one (${reason}) at ${files}`))
      return
    }
    if (isQuarantined) {
      const culprit = this.quarantine.crashed()
      if (culprit) {
        const { image } = taskOf(culprit)
        const { batch, job } = culprit.posted
        if (job.stage === 'mix')
          batch.finish(new UserError(`cannot make ${image}: it ends the thread that makes it (${reason})`))
        else this.leaveOut(culprit, `cannot read the image ${image}: it ends the thread that reads it (${reason})`)
      }
      this.quarantine.next()
      return
    }
    this.options.onCrash?.(`a loader thread ended (${reason}) while it read ${files}: read again, one after the other`)
    const successor = this.startWorker(thread)
    this.threads[thread - 1] = successor
    for (const posted of this.jobs.all()) if (!this.quarantine.holds(posted)) successor.postMessage(posted.job)
    this.quarantine.add(inFlight.map((task) => this.jobs.again(task, this.cache.hasRoom)))
  }

  /** For each stream the order of its list in an epoch. */
  private drawOrders(epoch: number): Uint32Array[] {
    const { layout, seed, ranks } = this.options
    return layout.map((stream) => {
      const { length } = this.listOf(stream.split)
      return ranks ? distributedOrder(length, epoch, ranks) : orderOf(stream, seed, epoch, length)
    })
  }

  /** Hands the batch of an iteration to the workers. */
  private submit(epoch: number, iteration: number, orders: readonly Uint32Array[]): PendingBatch {
    if (this.failure) throw this.failure
    const { layout, config } = this.options
    const tasks = layout.flatMap((spec, stream) => {
      const count = imagesOf(spec, config.batch_size)
      return Array.from({ length: count }, (_, position) => {
        const order = orders[stream] ?? new Uint32Array()
        const sample = sampleAt(order, iteration, count, position)
        return this.taskOf(stream, position, sample, sample)
      })
    })
    const { buffer } = this.slots[iteration % slotCount] as { buffer: SharedArrayBuffer }
    const mixed = tasks.filter(({ stream }) => mixes(layout[stream] as StreamSpec, epoch))
    const mix = mixed.length === 0 ? undefined : (batch: PendingBatch) => this.mix(batch, mixed)
    const index = epoch * this.iterationsPerEpoch + iteration
    const pending = new PendingBatch(buffer, epoch, index, tasks.length, mix)
    const places = tasks.map(({ stream, sample }, place) => ({ place, index: sample % this.lengthOf(stream) }))
    const posted = this.jobs.register(pending, tasks, places, 'images', this.cache.hasRoom)
    void pending.quiet.then(() => this.jobs.forget(pending))
    for (const worker of this.threads) worker.postMessage(posted.job)
    return pending
  }

  /** Hands the places of a batch whose images are all there to the workers. Returns their number. */
  private mix(batch: PendingBatch, tasks: readonly Task[]): number {
    const mixed = tasks.map((task) => ({ ...task, image: `the mixed view of ${task.image}`, cached: null }))
    const places = tasks.map((_, place) => ({ place, index: 0 }))
    const { job } = this.jobs.register(batch, mixed, places, 'mix', false)
    for (const worker of this.threads) worker.postMessage(job)
    return tasks.length
  }

  private splitOf(stream: number): StreamSpec['split'] {
    return this.options.layout[stream]?.split ?? 'labeled'
  }

  /** The images of a split, the labeled ones repeated to the length of an epoch. */
  private listOf(split: StreamSpec['split']): readonly Sample[] {
    return split === 'labeled' ? this.labeled : this.options.unlabeled
  }

  /** Different images of a stream. */
  private lengthOf(stream: number): number {
    return this.options[this.splitOf(stream)].length
  }

  /** @param index the image's place in its list */
  private taskOf(stream: number, position: number, sample: number, index: number): Task {
    const split = this.splitOf(stream)
    const { image, label: labelPath } = this.listOf(split)[index] as Sample
    const label = split === 'labeled' ? labelPath : null
    return { stream, position, sample, image, label, cached: this.cache.get(imageKey(image, label)) }
  }

  private receive(reply: Reply): void {
    const posted = this.jobs.get(reply.id)
    if (!posted) return
    posted.replied.add(reply.task)
    const task = taskOf({ posted, task: reply.task })
    if (reply.decoded) this.cache.add(imageKey(task.image, task.label), reply.decoded)
    const { error } = reply
    if (error?.unreadable) this.leaveOut({ posted, task: reply.task }, error.message)
    else posted.batch.finish(error && new Error(error.message))
    this.quarantine.replied(posted)
  }

  /** Has the next image of the list read in the place of one that cannot be. */
  private leaveOut(lost: PostedTask, reason: string): void {
    const { batch, replied } = lost.posted
    const { stream, position, sample, image, label, place, index } = taskOf(lost)
    replied.add(lost.task)
    this.unreadable.add(imageKey(image, label))
    const { maxUnreadable = 0 } = this.options
    if (this.unreadable.size > maxUnreadable) {
      const count = maxUnreadable === 0 ? '' : `${this.unreadable.size} files cannot be read, the last one: `
      batch.finish(new UserError(`${count}${reason}`))
      return
    }
    if (batch.cancelled) {
      batch.finish(null)
      return
    }
    const length = this.lengthOf(stream)
    const next = (index + 1) % length
    if (next === sample % length) {
      batch.finish(new UserError(`none of the ${length} ${this.splitOf(stream)} images can be read: ${reason}`))
      return
    }
    const other = this.taskOf(stream, position, sample, next)
    batch.unreadable.push({ place, file: { image, reason, replacement: other.image } })
    const { job } = this.jobs.register(batch, [other], [{ place, index: next }], 'images', this.cache.hasRoom)
    for (const worker of this.threads) worker.postMessage(job)
  }

  private reportUnreadable({ unreadable }: PendingBatch): void {
    // The order of the replies is that of the threads; that of the places is always the same.
    for (const { file } of unreadable.sort((a, b) => a.place - b.place)) {
      if (!this.reported.has(file.image)) this.options.onUnreadable?.(file)
      this.reported.add(file.image)
    }
  }

  private fail(error: Error): void {
    this.failure ??= error
    for (const { batch } of this.jobs.all()) batch.abandon(error)
  }
}

/** What an epoch leaves out of the labeled images, in a line; nothing where it passes over all of them. */
export function shortenedEpoch(
  labeled: number,
  unlabeled: number,
  batchSize: number,
  epochOf?: StreamSpec['split'],
): string | undefined {
  if (epochOf === 'labeled') return undefined
  const taken = Math.floor(unlabeled / batchSize) * batchSize
  // What does not fill a batch is left out in any case, and lists of about one length are meant as they are.
  if (unlabeled === 0 || taken >= 0.9 * labeled) return undefined
  return (
    `an epoch is one pass over the ${unlabeled} unlabeled images, in which ${taken} of the ${labeled} labeled ones take ` +
    'part, others in each: list the labeled images as unlabeled ones, too, or train for more epochs'
  )
}

/**
 * Starts the threads that read and augment images. Augmentation is theirs and not the device's: Pillow's rounding is
 * integer arithmetic with an order of operations that differs from image to image, a CPU adapter would run it on the
 * same cores and more slowly (docs/performance.md), and beside a GPU those cores are idle.
 *
 * A batch holds what `layout` says; an epoch is one pass over the unlabeled images, to whose number the labeled list is
 * repeated, or over the labeled ones where no unlabeled ones are used. What does not fill a batch at its end is left out.
 * @throws UserError if the lists do not fill a batch
 */
export function createLoader(options: LoaderOptions): Loader {
  return new ThreadedLoader(options)
}
