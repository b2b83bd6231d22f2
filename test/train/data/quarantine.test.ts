// Tasks whose thread ended, and batches that are cancelled meanwhile.
import type { Worker } from 'node:worker_threads'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { JobTable, PendingBatch, type PostedTask } from '#dist/train/data/loader-jobs.js'
import type { Job, Task } from '#dist/train/data/loader-worker.js'
import { Quarantine } from '#dist/train/data/quarantine.js'

const task: Task = { stream: 0, position: 0, sample: 0, image: 'a.png', label: null, cached: null }

/** A batch of so many tasks, each of which a thread has begun and not answered. */
function begun(table: JobTable, tasks: number): { batch: PendingBatch; lost: PostedTask[] } {
  const batch = new PendingBatch(new SharedArrayBuffer(8), 0, 0, tasks, undefined)
  const places = Array.from({ length: tasks }, (_, place) => ({ place, index: place }))
  const all = places.map(() => task)
  const posted = table.register(batch, all, places, 'images', false)
  Atomics.store(posted.job.next, 0, tasks)
  return { batch, lost: all.map((_, i) => ({ posted, task: i })) }
}

/** A quarantine whose threads take nothing by themselves, and the jobs that they get. */
function quarantineOf(): { quarantine: Quarantine; given: Job[]; started: () => number } {
  const given: Job[] = []
  let threads = 0
  const start = () => {
    threads++
    return { postMessage: (job: Job) => given.push(job), terminate: async () => 0 } as unknown as Worker
  }
  return { quarantine: new Quarantine(2, start), given, started: () => threads }
}

test('a task that is lost after its batch was cancelled is still done again', async () => {
  const table = new JobTable()
  const { batch, lost } = begun(table, 2)
  const [first, second] = lost
  if (!first || !second) throw new Error('unreachable: there are two tasks')
  const { quarantine, given } = quarantineOf()
  quarantine.add([table.again(first, false)])
  // The thread has not begun it when the batch is cancelled; the second task was begun by another thread, which ends now.
  batch.cancel()
  quarantine.leaveCutShort()
  const again = table.again(second, false)
  quarantine.add([again])
  assert.is(given.at(-1), again.posted.job)
  batch.finish(null)
  quarantine.replied(again.posted)
  await batch.quiet
})

test('a task that was begun keeps its place when its batch is cancelled', () => {
  const table = new JobTable()
  const { batch, lost } = begun(table, 2)
  const { quarantine, given, started } = quarantineOf()
  const tasks = lost.map((each) => table.again(each, false))
  quarantine.add(tasks)
  const [first] = tasks
  if (!first) throw new Error('unreachable: there are two tasks')
  Atomics.store(first.posted.job.next, 0, 1)
  batch.cancel()
  quarantine.leaveCutShort()
  assert.equal([given.length, started()], [1, 1])
  assert.is(quarantine.crashed(), first)
})

test.run()
