import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { type Batch, batchBytes, batchViews } from './batch.js'
import type { Config } from './config.js'
import type { Sample } from './dataset.js'
import { UserError } from './error.js'
import { labelRules } from './label.js'
import type { Decoded, Job, Reply, Task, WorkerSettings } from './loader-worker.js'
import { PURPOSE, Random } from './random.js'

export interface LoaderOptions {
  /** `crop_size`, `batch_size`, `nclass`, `ignore_index` and `dataset` are used. */
  config: Config
  labeled: readonly Sample[]
  /** For `supervised` it gives the length of the epoch alone, and may be empty. */
  unlabeled: readonly Sample[]
  seed: number
  /** Threads; the batches do not depend on their number. Default: one core is left free, at most eight are used. */
  workers?: number
  method: Config['method']
  /** Decoded pictures are kept in memory up to this size. Default: 512 MiB. */
  cacheBytes?: number
}

export interface Loader {
  readonly iterationsPerEpoch: number
  /** Threads. */
  readonly workers: number
  /**
   * The batches of an epoch (counted from 0), from the iteration `start` on. A batch is valid until the next one is
   * requested. One epoch can be read at a time; it may be left early.
   * @throws UserError naming the file that cannot be read
   */
  epoch(epoch: number, start?: number): AsyncIterable<Batch>
  /** Ends the threads. */
  close(): Promise<void>
}

/** Batches in memory: one in use, the others being filled. */
const SLOTS = 3
const DEFAULT_CACHE_BYTES = 512 * 2 ** 20

/** A job at the workers; `done` settles when its batch is complete or a task of it has failed. */
class Pending {
  readonly done: Promise<void>
  /** Settles when no worker touches the buffer any more. */
  readonly quiet: Promise<void>
  private finished = 0
  private total: number
  private settle!: { resolve: () => void; reject: (error: Error) => void; quiet: () => void }

  constructor(readonly job: Job) {
    this.total = job.tasks.length
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
    const { tasks, next } = this.job
    this.total = Math.min(Atomics.exchange(next, 0, tasks.length), tasks.length)
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

class ThreadedLoader implements Loader {
  readonly iterationsPerEpoch: number
  private readonly labeled: Sample[]
  private readonly unlabeled: readonly Sample[]
  private readonly usesUnlabeled: boolean
  private readonly threads: Worker[]
  private readonly slots: { buffer: SharedArrayBuffer; batch: Batch }[]
  private readonly pending = new Map<number, Pending>()
  private readonly cache = new Map<string, Decoded>()
  private cacheLeft: number
  private jobs = 0
  private reading = false
  private failure: Error | null = null

  constructor(private readonly options: LoaderOptions) {
    const { config, labeled, unlabeled, method, seed } = options
    const { batch_size: batchSize, crop_size: size } = config
    this.usesUnlabeled = method !== 'supervised'
    if (labeled.length === 0) throw new UserError('there are no labeled pictures: give a list with --labeled-id-path')
    if (this.usesUnlabeled && unlabeled.length === 0) {
      throw new UserError(`the method ${method} needs unlabeled pictures: give a list with --unlabeled-id-path`)
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
      const buffer = new SharedArrayBuffer(batchBytes(batchSize, size, this.usesUnlabeled))
      return { buffer, batch: batchViews(buffer, batchSize, size, this.usesUnlabeled) }
    })
    const workerData: WorkerSettings = {
      size,
      batchSize,
      unlabeled: this.usesUnlabeled,
      rules: labelRules(config),
      seed,
    }
    const count = options.workers ?? config.workers ?? Math.min(8, Math.max(1, availableParallelism() - 1))
    this.threads = Array.from({ length: count }, () => this.startWorker(workerData))
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
        await (queue[0] as Pending).done
        yield (this.slots[i % SLOTS] as { batch: Batch }).batch
        queue.shift()
      }
    } finally {
      for (const pending of queue) pending.cancel()
      await Promise.all(queue.map((pending) => pending.quiet))
      for (const worker of this.threads) worker.unref()
      this.reading = false
    }
  }

  async close(): Promise<void> {
    this.fail(new Error('the loader is closed'))
    await Promise.all(this.threads.map((worker) => worker.terminate()))
  }

  private startWorker(workerData: WorkerSettings): Worker {
    const worker = new Worker(new URL('./loader-worker.js', import.meta.url), { workerData })
    worker.on('message', (reply: Reply) => this.receive(reply))
    worker.on('error', (error) => this.fail(error))
    worker.on('exit', (code) => this.fail(new Error(`a loader thread ended with code ${code}`)))
    worker.unref()
    return worker
  }

  private drawOrders(epoch: number): Record<Task['kind'], Uint32Array> {
    const order = (purpose: number, length: number) => new Random(this.options.seed, epoch, purpose).permutation(length)
    return {
      labeled: order(PURPOSE.labeledOrder, this.labeled.length),
      unlabeled: order(PURPOSE.unlabeledOrder, this.unlabeled.length),
      mix: order(PURPOSE.mixOrder, this.unlabeled.length),
    }
  }

  /** Hands the batch of an iteration to the workers. */
  private submit(epoch: number, iteration: number, orders: Record<Task['kind'], Uint32Array>): Pending {
    if (this.failure) throw this.failure
    const tasks: Task[] = []
    const kinds: Task['kind'][] = this.usesUnlabeled ? ['labeled', 'unlabeled', 'mix'] : ['labeled']
    const { batch_size: batchSize } = this.options.config
    for (const kind of kinds) {
      const list = kind === 'labeled' ? this.labeled : this.unlabeled
      for (let position = 0; position < batchSize; position++) {
        const sample = orders[kind][iteration * batchSize + position] as number
        const { image, label: labelPath } = list[sample] as Sample
        const label = kind === 'labeled' ? labelPath : null
        tasks.push({ kind, position, sample, image, label, cached: this.cache.get(cacheKey(image, label)) ?? null })
      }
    }
    const job: Job = {
      id: this.jobs++,
      epoch,
      buffer: (this.slots[iteration % SLOTS] as { buffer: SharedArrayBuffer }).buffer,
      next: new Int32Array(new SharedArrayBuffer(4)),
      tasks,
      keep: this.cacheLeft > 0,
    }
    const pending = new Pending(job)
    this.pending.set(job.id, pending)
    void pending.quiet.then(() => this.pending.delete(job.id))
    for (const worker of this.threads) worker.postMessage(job)
    return pending
  }

  private receive(reply: Reply): void {
    const pending = this.pending.get(reply.id)
    if (!pending) return
    const task = pending.job.tasks[reply.task] as Task
    if (reply.decoded) this.remember(cacheKey(task.image, task.label), reply.decoded)
    const { error } = reply
    pending.finish(error && (error.user ? new UserError(error.message) : new Error(error.message)))
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
    for (const pending of this.pending.values()) pending.abandon(error)
  }
}

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
