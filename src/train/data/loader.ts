import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { type Batch, type BatchLayout, batchBytes, batchViews, imagesOf, type StreamSpec, takes } from './batch.js'
import type { Sample } from './dataset.js'
import '../io/decoders.js'
import { UserError } from '../error.js'
import { Random } from '../random.js'
import { labelRules } from './labels.js'
import type { Decoded, Job, Reply, Task, WorkerSettings } from './loader-worker.js'
import type { LoaderSettings } from './settings.js'

export interface LoaderOptions {
  config: LoaderSettings
  labeled: readonly Sample[]
  /** Where no stream takes unlabeled images, the list gives the length of an epoch alone, and may be empty. */
  unlabeled: readonly Sample[]
  seed: number
  /** Threads; the batches do not depend on their number. Default: one core is left free, at most eight are used. */
  workers?: number
  /** What a batch holds. */
  layout: BatchLayout
  /** Decoded pictures are kept in memory up to this size. Default: 512 MiB. */
  cacheBytes?: number
  /**
   * So many files may be unreadable. Each is left out, and the next picture of its list that can be read takes its place,
   * with the random choices of that place: the batches depend on which files can be read, and on nothing else. Default: 0.
   */
  maxUnreadable?: number
  /** Told of every file that is left out, once, before the first batch that lacks it. */
  onUnreadable?: (file: UnreadableFile) => void
  /** Told in one line that a thread has ended and what becomes of its tasks. */
  onCrash?: (line: string) => void
}

export interface UnreadableFile {
  readonly image: string
  /** One line that names the file and what is wrong with it. */
  readonly reason: string
  /** The picture in its place. */
  readonly replacement: string
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
const SLOTS = 3
const DEFAULT_CACHE_BYTES = 512 * 2 ** 20

/** A batch at the workers; `done` settles when it is complete, or cannot be. */
class Pending {
  readonly done: Promise<void>
  /** Settles when no worker touches the buffer any more. */
  readonly quiet: Promise<void>
  /** The jobs that fill it: the first one, and one for each task that is done again. */
  readonly jobs: Posted[] = []
  /** Files that were left out, by place in the batch and attempt. */
  readonly unreadable: { readonly place: number; readonly file: UnreadableFile }[] = []
  cancelled = false
  private finished = 0
  private settle!: { resolve: () => void; reject: (error: Error) => void; quiet: () => void }

  constructor(
    readonly buffer: SharedArrayBuffer,
    readonly epoch: number,
    private total: number,
  ) {
    let quiet = () => {}
    this.quiet = new Promise((resolve) => {
      quiet = resolve
    })
    this.done = new Promise((resolve, reject) => {
      this.settle = { resolve, reject, quiet }
    })
    // The failure of a batch that is never asked for is nobody's.
    this.done.catch(() => {})
  }

  finish(error: Error | null): void {
    if (error) this.settle.reject(error)
    this.finished++
    this.settleIfFinished()
  }

  /** Leaves the tasks that no worker has begun. */
  cancel(): void {
    this.cancelled = true
    for (const { job } of this.jobs) {
      const { length } = job.tasks
      this.total -= length - Math.min(Atomics.exchange(job.next, 0, length), length)
    }
    this.settle.reject(new Error('the batch was cancelled'))
    this.settleIfFinished()
  }

  /** No more replies will come. */
  abandon(error: Error): void {
    this.settle.reject(error)
    this.settle.quiet()
  }

  private settleIfFinished(): void {
    if (this.finished < this.total) return
    this.settle.resolve()
    this.settle.quiet()
  }
}

/** A job at the workers, and what is known of its tasks. */
interface Posted {
  readonly job: Job
  readonly pending: Pending
  /** Where in the batch each task belongs, and where in its list its picture is. */
  readonly places: readonly { readonly place: number; readonly index: number }[]
  /** Tasks with a reply. */
  readonly replied: Set<number>
}

/** A task that a thread had when it ended. */
interface Suspect {
  readonly posted: Posted
  readonly task: number
}

/** So many threads may end by themselves. */
const MAX_CRASHES = 10
/** Milliseconds until a thread is left to the end of the process: one that waits for a file cannot be ended. */
const CLOSING_TIME = 2000

class ThreadedLoader implements Loader {
  readonly iterationsPerEpoch: number
  private readonly labeled: Sample[]
  private readonly unlabeled: readonly Sample[]
  private readonly threads: Worker[]
  private readonly settings: Omit<WorkerSettings, 'thread'>
  private readonly slots: { buffer: SharedArrayBuffer; batch: Batch }[]
  private readonly posted = new Map<number, Posted>()
  /** The batch that was asked for. */
  private awaited: Pending | undefined
  private readonly unreadable = new Set<string>()
  private readonly told = new Set<string>()
  private crashes = 0
  /** Tasks that are done again, one after the other, by a thread that does nothing else. */
  private readonly suspects: Suspect[] = []
  private lone: Worker | undefined
  private readonly cache = new Map<string, Decoded>()
  private cacheLeft: number
  private jobs = 0
  private reading = false
  private failure: Error | null = null
  private closing = false

  constructor(private readonly options: LoaderOptions) {
    const { config, labeled, unlabeled, layout, seed } = options
    const { batch_size: batchSize, crop_size: size } = config
    if (labeled.length === 0) throw new UserError('there are no labeled pictures: give a list with --labeled-id-path')
    if (takes(layout, 'unlabeled') && unlabeled.length === 0) {
      throw new UserError(`the method ${config.method} needs unlabeled images: give a list with --unlabeled-id-path`)
    }
    const length = unlabeled.length || labeled.length
    this.labeled = Array.from(
      { length: Math.max(length, labeled.length) },
      (_, i) => labeled[i % labeled.length] as Sample,
    )
    this.unlabeled = unlabeled
    this.iterationsPerEpoch = Math.floor(length / batchSize)
    if (this.iterationsPerEpoch === 0) {
      throw new UserError(`${length} pictures do not fill a batch of ${batchSize}: add some, or lower batch_size`)
    }
    this.cacheLeft = options.cacheBytes ?? DEFAULT_CACHE_BYTES
    this.slots = Array.from({ length: SLOTS }, () => {
      const buffer = new SharedArrayBuffer(batchBytes(layout, batchSize, size))
      return { buffer, batch: batchViews(buffer, layout, batchSize, size) }
    })
    this.settings = {
      size,
      batchSize,
      layout,
      rules: labelRules(config),
      seed,
    }
    const count = options.workers ?? config.workers ?? Math.min(8, Math.max(1, availableParallelism() - 1))
    this.threads = Array.from({ length: count }, (_, i) => this.startWorker(i + 1))
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
    const queue: Pending[] = []
    try {
      for (let i = start, next = start; i < this.iterationsPerEpoch; i++) {
        for (; next < this.iterationsPerEpoch && next < i + SLOTS; next++) queue.push(this.submit(epoch, next, orders))
        this.awaited = queue[0] as Pending
        await this.awaited.done
        this.tellUnreadable(this.awaited)
        this.awaited = undefined
        yield (this.slots[i % SLOTS] as { batch: Batch }).batch
        queue.shift()
      }
    } finally {
      this.awaited = undefined
      for (const pending of queue) pending.cancel()
      await Promise.all(queue.map((pending) => pending.quiet))
      this.suspects.length = 0
      this.nextSuspect()
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
    return missing.length === 0 ? 'the next batch' : `pictures to be read: ${missing.join(', ')}`
  }

  async close(): Promise<void> {
    this.closing = true
    this.fail(new Error('the loader is closed'))
    const all = this.lone ? [...this.threads, this.lone] : this.threads
    let timer: NodeJS.Timeout | undefined
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, CLOSING_TIME)
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

  /** A thread has ended: another takes its place, and its tasks are done again. */
  private restart(worker: Worker, thread: number, reason: string): void {
    const isLone = thread === this.loneThread
    const isOurs = (isLone ? this.lone : this.threads[thread - 1]) === worker
    if (!isOurs || this.closing || this.failure) return
    const held: Suspect[] = [...this.posted.values()].flatMap((posted) =>
      posted.job.tasks.flatMap((_, task) => {
        const isHeld = Atomics.load(posted.job.takers, task) === thread && !posted.replied.has(task)
        return isHeld ? [{ posted, task }] : []
      }),
    )
    const files = held.map(({ posted, task }) => imageOf(posted, task)).join(', ')
    if (++this.crashes > MAX_CRASHES) {
      this.fail(new Error(`the loader's threads ended ${this.crashes} times, the last one (${reason}) at ${files}`))
      return
    }
    if (isLone) {
      this.lone = undefined
      const culprit = this.suspects.shift()
      if (culprit) {
        const image = imageOf(culprit.posted, culprit.task)
        this.leaveOut(culprit, `cannot read the image ${image}: it ends the thread that reads it (${reason})`)
      }
      this.nextSuspect()
      return
    }
    this.options.onCrash?.(`a loader thread ended (${reason}) while it read ${files}: read again, one after the other`)
    const successor = this.startWorker(thread)
    this.threads[thread - 1] = successor
    // What is left of the batches, but not what is to be done alone.
    const alone = new Set(this.suspects.map(({ posted }) => posted))
    for (const posted of this.posted.values()) if (!alone.has(posted)) successor.postMessage(posted.job)
    for (const suspect of held) this.suspects.push(this.again(suspect))
    if (alone.size === 0) this.nextSuspect()
  }

  private get loneThread(): number {
    return this.threads.length + 1
  }

  /** Lets the lone thread do the first suspect. */
  private nextSuspect(): void {
    const [suspect] = this.suspects
    if (!suspect) {
      void this.lone?.terminate()
      this.lone = undefined
      return
    }
    this.lone ??= this.startWorker(this.loneThread)
    this.lone.postMessage(suspect.posted.job)
  }

  /** A job of one task, for a place of a batch whose task is not done. */
  private again({ posted, task }: Suspect): Suspect {
    posted.replied.add(task)
    const { place, index } = posted.places[task] as { place: number; index: number }
    const same = posted.job.tasks[task] as Task
    return { posted: this.register(posted.pending, [same], [{ place, index }]), task: 0 }
  }

  private register(pending: Pending, tasks: Task[], places: Posted['places']): Posted {
    const shared = () => new SharedArrayBuffer(4 * tasks.length)
    const job: Job = {
      id: this.jobs++,
      epoch: pending.epoch,
      buffer: pending.buffer,
      next: new Int32Array(new SharedArrayBuffer(4)),
      takers: new Int32Array(shared()),
      tasks,
      keep: this.cacheLeft > 0,
    }
    const posted = { job, pending, places, replied: new Set<number>() }
    pending.jobs.push(posted)
    this.posted.set(job.id, posted)
    return posted
  }

  /** For each stream the order of its list in an epoch. */
  private drawOrders(epoch: number): Uint32Array[] {
    const { layout, seed } = this.options
    return layout.map(({ split, purpose }) => {
      return new Random(seed, epoch, purpose.order).permutation(this.listOf(split).length)
    })
  }

  /** Hands the batch of an iteration to the workers. */
  private submit(epoch: number, iteration: number, orders: readonly Uint32Array[]): Pending {
    if (this.failure) throw this.failure
    const { layout, config } = this.options
    const tasks = layout.flatMap((spec, stream) => {
      const count = imagesOf(spec, config.batch_size)
      return Array.from({ length: count }, (_, position) => {
        const order = orders[stream] ?? new Uint32Array()
        // A stream that takes more images than the epoch was measured for begins its list again.
        const sample = order[(iteration * count + position) % order.length] as number
        return this.taskOf(stream, position, sample, sample)
      })
    })
    const { buffer } = this.slots[iteration % SLOTS] as { buffer: SharedArrayBuffer }
    const pending = new Pending(buffer, epoch, tasks.length)
    const posted = this.register(
      pending,
      tasks,
      tasks.map(({ stream, sample }, place) => ({ place, index: sample % this.lengthOf(stream) })),
    )
    void pending.quiet.then(() => {
      for (const { job } of pending.jobs) this.posted.delete(job.id)
    })
    for (const worker of this.threads) worker.postMessage(posted.job)
    return pending
  }

  private splitOf(stream: number): StreamSpec['split'] {
    return this.options.layout[stream]?.split ?? 'labeled'
  }

  /** The images of a split, the labeled ones repeated to the length of an epoch. */
  private listOf(split: StreamSpec['split']): readonly Sample[] {
    return split === 'labeled' ? this.labeled : this.unlabeled
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
    return { stream, position, sample, image, label, cached: this.cache.get(cacheKey(image, label)) ?? null }
  }

  private receive(reply: Reply): void {
    const posted = this.posted.get(reply.id)
    if (!posted) return
    posted.replied.add(reply.task)
    const task = posted.job.tasks[reply.task] as Task
    if (reply.decoded) this.remember(cacheKey(task.image, task.label), reply.decoded)
    const { error } = reply
    if (error?.unreadable) this.leaveOut({ posted, task: reply.task }, error.message)
    else posted.pending.finish(error && new Error(error.message))
    if (this.suspects[0]?.posted === posted) {
      this.suspects.shift()
      this.nextSuspect()
    }
  }

  /** Has the next picture of the list read in the place of one that cannot be. */
  private leaveOut({ posted, task }: Suspect, reason: string): void {
    const { pending } = posted
    const { stream, position, sample, image, label } = posted.job.tasks[task] as Task
    posted.replied.add(task)
    this.unreadable.add(cacheKey(image, label))
    const { maxUnreadable = 0 } = this.options
    if (this.unreadable.size > maxUnreadable) {
      const count = maxUnreadable === 0 ? '' : `${this.unreadable.size} files cannot be read, the last one: `
      pending.finish(new UserError(`${count}${reason}`))
      return
    }
    if (pending.cancelled) {
      pending.finish(null)
      return
    }
    const { place, index } = posted.places[task] as { place: number; index: number }
    const length = this.lengthOf(stream)
    const next = (index + 1) % length
    if (next === sample % length) {
      pending.finish(new UserError(`none of the ${length} ${this.splitOf(stream)} images can be read: ${reason}`))
      return
    }
    const other = this.taskOf(stream, position, sample, next)
    pending.unreadable.push({ place, file: { image, reason, replacement: other.image } })
    const { job } = this.register(pending, [other], [{ place, index: next }])
    for (const worker of this.threads) worker.postMessage(job)
  }

  private tellUnreadable({ unreadable }: Pending): void {
    // The order of the replies is that of the threads; that of the places is always the same.
    for (const { file } of unreadable.sort((a, b) => a.place - b.place)) {
      if (!this.told.has(file.image)) this.options.onUnreadable?.(file)
      this.told.add(file.image)
    }
  }

  /**
   * Fills the cache and then leaves it: as every epoch reads every picture once, a fixed part of them serves better than
   * the most recent ones.
   */
  private remember(key: string, decoded: Decoded): void {
    const bytes = decoded.image.data.length + (decoded.label?.data.length ?? 0)
    if (this.cache.has(key) || bytes > this.cacheLeft) return
    this.cacheLeft -= bytes
    this.cache.set(key, decoded)
  }

  private fail(error: Error): void {
    this.failure ??= error
    for (const { pending } of this.posted.values()) pending.abandon(error)
  }
}

const imageOf = ({ job }: Posted, task: number): string => (job.tasks[task] as Task).image

function cacheKey(image: string, label: string | null): string {
  return `${image}\n${label ?? ''}`
}

/**
 * Starts the threads that read and augment pictures. Augmentation is theirs and not the device's: Pillow's rounding is
 * integer arithmetic with an order of operations that differs from picture to picture, a CPU adapter would run it on the
 * same cores and more slowly (docs/performance.md), and beside a GPU those cores are idle.
 *
 * The labeled list is repeated to the length of the unlabeled one; a batch holds `batch_size` labeled pictures, as many
 * unlabeled ones, and as many of a second, independent order of the unlabeled list (`..._mix`). What does not fill a
 * batch at the end of an epoch is left out.
 * @throws UserError if the lists do not fill a batch
 */
export function createLoader(options: LoaderOptions): Loader {
  return new ThreadedLoader(options)
}
