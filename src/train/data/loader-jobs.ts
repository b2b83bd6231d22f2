import type { Job, Task } from './loader-worker.js'

export interface UnreadableFile {
  readonly image: string
  /** One line that names the file and what is wrong with it. */
  readonly reason: string
  /** The image in its place. */
  readonly replacement: string
}

/** A batch at the workers; `done` settles when it is complete, or cannot be. */
export class PendingBatch {
  readonly done: Promise<void>
  /** Settles when no worker touches the buffer any more. */
  readonly quiet: Promise<void>
  /** The jobs that fill it: the first one, and one for each task that is done again. */
  readonly jobs: PostedJob[] = []
  /** Files that were left out, by place in the batch and attempt. */
  readonly unreadable: { readonly place: number; readonly file: UnreadableFile }[] = []
  cancelled = false
  private failed = false
  private finished = 0
  private settle!: { resolve: () => void; reject: (error: Error) => void; quiet: () => void }

  /**
   * @param index number of the batch in the training
   * @param total tasks that fill it, image by image
   * @param mix called when they are done; posts the tasks that mix its images, and returns their number
   */
  constructor(
    readonly buffer: SharedArrayBuffer,
    readonly epoch: number,
    readonly index: number,
    private total: number,
    private mix: ((batch: PendingBatch) => number) | undefined,
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

  /** One of its tasks is done, or failed. */
  finish(error: Error | null): void {
    if (error) {
      this.failed = true
      this.settle.reject(error)
    }
    this.finished++
    this.settleIfFinished()
  }

  /** Leaves the tasks that no worker has begun. */
  cancel(): void {
    this.cancelled = true
    for (const posted of this.jobs) {
      const { length } = posted.job.tasks
      const left = length - Math.min(Atomics.exchange(posted.job.next, 0, length), length)
      posted.isCutShort = left > 0
      this.total -= left
    }
    this.settle.reject(new Error('the batch was cancelled'))
    this.settleIfFinished()
  }

  /** No more replies will come. */
  abandon(error: Error): void {
    this.failed = true
    this.settle.reject(error)
    this.settle.quiet()
  }

  private settleIfFinished(): void {
    if (this.finished < this.total) return
    const { mix } = this
    this.mix = undefined
    if (mix && !this.cancelled && !this.failed) {
      this.total += mix(this)
      if (this.finished < this.total) return
    }
    this.settle.resolve()
    this.settle.quiet()
  }
}

/** Where in a batch a task belongs, and where in its list its image is. */
export interface Place {
  readonly place: number
  readonly index: number
}

/** A job at the workers, and what is known of its tasks. */
export interface PostedJob {
  readonly job: Job
  readonly batch: PendingBatch
  /** By task. */
  readonly places: readonly Place[]
  /** Tasks with a reply. */
  readonly replied: Set<number>
  /** Whether tasks were left that no worker had begun: nobody will answer them. */
  isCutShort?: boolean
}

/** One task of a job. */
export interface PostedTask {
  readonly posted: PostedJob
  readonly task: number
}

/** The task, with its place. */
export function taskOf({ posted, task }: PostedTask): Task & Place {
  const [found, place] = [posted.job.tasks[task], posted.places[task]]
  if (!found || !place) throw new Error(`unreachable: a job has no task ${task}`)
  return { ...found, ...place }
}

/** The jobs at the workers. */
export class JobTable {
  private readonly posted = new Map<number, PostedJob>()
  private count = 0

  /**
   * Makes a job of tasks of a batch.
   * @param stage what the tasks are
   * @param keep whether decoded images are sent back for the cache
   */
  register(
    batch: PendingBatch,
    tasks: Task[],
    places: readonly Place[],
    stage: Job['stage'],
    keep: boolean,
  ): PostedJob {
    const job: Job = {
      id: this.count++,
      epoch: batch.epoch,
      batchIndex: batch.index,
      stage,
      buffer: batch.buffer,
      next: new Int32Array(new SharedArrayBuffer(4)),
      takers: new Int32Array(new SharedArrayBuffer(4 * tasks.length)),
      tasks,
      keep,
    }
    const posted: PostedJob = { job, batch, places, replied: new Set<number>() }
    batch.jobs.push(posted)
    this.posted.set(job.id, posted)
    return posted
  }

  /** A job of one task, in place of a task that is not done. */
  again(lost: PostedTask, keep: boolean): PostedTask {
    lost.posted.replied.add(lost.task)
    const { place, index, ...task } = taskOf(lost)
    const { batch, job } = lost.posted
    return { posted: this.register(batch, [task], [{ place, index }], job.stage, keep), task: 0 }
  }

  get(id: number): PostedJob | undefined {
    return this.posted.get(id)
  }

  all(): PostedJob[] {
    return [...this.posted.values()]
  }

  /** Forgets the jobs of a batch that no worker touches any more. */
  forget({ jobs }: PendingBatch): void {
    for (const { job } of jobs) this.posted.delete(job.id)
  }

  /** Tasks that a thread has taken and not answered. */
  inFlight(thread: number): PostedTask[] {
    return this.all().flatMap((posted) =>
      posted.job.tasks.flatMap((_, task) => {
        const isTaken = Atomics.load(posted.job.takers, task) === thread && !posted.replied.has(task)
        return isTaken ? [{ posted, task }] : []
      }),
    )
  }
}
