import type { Worker } from 'node:worker_threads'
import type { PostedJob, PostedTask } from './loader-jobs.js'

/**
 * Where tasks are done again whose thread ended meanwhile: one after the other, by a thread that does nothing else, so that
 * the image which ends a thread is known.
 */
export class Quarantine {
  private retryQueue: PostedTask[] = []
  private worker: Worker | undefined

  /**
   * @param thread number of its thread
   * @param start starts a worker of that number
   */
  constructor(
    readonly thread: number,
    private readonly start: (thread: number) => Worker,
  ) {}

  /** Whether a worker is that of the quarantine. */
  has(worker: Worker): boolean {
    return this.worker === worker
  }

  /** Whether the tasks of a job are done here. */
  holds(posted: PostedJob): boolean {
    return this.retryQueue.some((task) => task.posted === posted)
  }

  /** Queues tasks, each a job of its own. */
  add(tasks: readonly PostedTask[]): void {
    const wasEmpty = this.retryQueue.length === 0
    this.retryQueue.push(...tasks)
    if (wasEmpty) this.next()
  }

  /** A job is done: the next task follows, where it was one of these. */
  replied(posted: PostedJob): void {
    if (this.retryQueue[0]?.posted !== posted) return
    this.retryQueue.shift()
    this.next()
  }

  /** The thread has ended. Returns the task that ended it; `next` continues with the others. */
  crashed(): PostedTask | undefined {
    this.worker = undefined
    return this.retryQueue.shift()
  }

  /** Hands the first task to the thread; without one, ends the thread. */
  next(): void {
    const [task] = this.retryQueue
    if (!task) {
      void this.worker?.terminate()
      this.worker = undefined
      return
    }
    this.worker ??= this.start(this.thread)
    this.worker.postMessage(task.posted.job)
  }

  /** Leaves tasks that nobody will answer, since their batch was cancelled before they were begun: others may follow. */
  leaveCutShort(): void {
    const [first] = this.retryQueue
    this.retryQueue = this.retryQueue.filter(({ posted }) => !posted.isCutShort)
    if (this.retryQueue[0] !== first) this.next()
  }

  /** Forgets all tasks. */
  clear(): void {
    this.retryQueue = []
    this.next()
  }

  /** The thread, if there is one, for the end of the process. */
  get threads(): Worker[] {
    return this.worker ? [this.worker] : []
  }
}
