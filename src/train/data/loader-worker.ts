import { parentPort, workerData } from 'node:worker_threads'
import { UserError } from '../error.js'
import { type Batch, type BatchLayout, batchViews, type StreamSpec } from './batch.js'
import { readImage, readPair } from './dataset.js'
import { fillFields, mixFields } from './fill-batch.js'
import type { LabelRules } from './label-rules.js'
import type { Image } from './pixels.js'

/** What a worker receives when it starts. */
export interface WorkerSettings {
  /** Number of the thread, from 1. */
  thread: number
  size: number
  batchSize: number
  layout: BatchLayout
  rules: LabelRules
  seed: number
}

/** A decoded image in shared memory, with its label where it has one. */
export interface Decoded {
  image: Image
  label: Image | null
}

/** One image to be augmented into its place in a batch, or the place whose image is mixed with others of the batch. */
export interface Task {
  /** Which stream of the layout it belongs to. */
  stream: number
  /** Place in the batch. */
  position: number
  /** Place in the list that the order of the epoch gives: names the random stream, whichever image is read. */
  sample: number
  image: string
  label: string | null
  cached: Decoded | null
}

/** A batch to be filled. All workers get it, and each takes tasks from it until none is left. */
export interface Job {
  id: number
  epoch: number
  /** Number of the batch in the training. */
  batchIndex: number
  /** `images`: each task reads an image; `mix`: all images are there, and each task mixes that of its place with others. */
  stage: 'images' | 'mix'
  buffer: SharedArrayBuffer
  /** One element: the next task that nobody has taken. */
  next: Int32Array
  /** For each task the number of the thread that took it; 0 before. */
  takers: Int32Array
  tasks: Task[]
  /** Whether decoded images are sent back for the cache. */
  keep: boolean
}

/** What a worker says about each task when it is done with it. */
export interface Reply {
  id: number
  task: number
  decoded: Decoded | null
  error: { message: string; unreadable: boolean } | null
}

/** Tasks in progress at a time in a worker: one is decoded by the decoder's threads while another is augmented. */
const LANES = 2

const settings = workerData as WorkerSettings
const filling = { ...settings, ignoreIndex: settings.rules.ignoreIndex }
const port = parentPort
if (!port) throw new Error('loader-worker runs in a worker thread only')

function toShared(image: Image): Image {
  const data = new Uint8Array(new SharedArrayBuffer(image.data.length))
  data.set(image.data)
  return { ...image, data }
}

function streamOf({ stream }: Task): StreamSpec {
  const found = settings.layout[stream]
  if (!found) throw new Error(`unreachable: there is no stream ${stream}`)
  return found
}

async function decodeTask(task: Task): Promise<Decoded> {
  if (streamOf(task).split === 'unlabeled')
    return { image: await readImage(task.image, settings.rules.orientation), label: null }
  return readPair({ name: task.image, image: task.image, label: task.label }, settings.rules)
}

async function runTask(job: Job, index: number, batch: Batch): Promise<Reply> {
  const task = job.tasks[index] as Task
  try {
    const place = { stream: streamOf(task), position: task.position, sample: task.sample }
    if (job.stage === 'mix') {
      mixFields(place, job, filling, batch)
      return { id: job.id, task: index, decoded: null, error: null }
    }
    const decoded = task.cached ?? (await decodeTask(task))
    fillFields(place, job.epoch, decoded, filling, batch)
    const keep = job.keep && !task.cached
    const label = decoded.label && keep ? toShared(decoded.label) : null
    return { id: job.id, task: index, decoded: keep ? { image: toShared(decoded.image), label } : null, error: null }
  } catch (error) {
    const unreadable = error instanceof UserError
    const message = unreadable ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)
    return { id: job.id, task: index, decoded: null, error: { message, unreadable } }
  }
}

const jobs: { job: Job; batch: Batch }[] = []
let lanes = 0

async function runLane(): Promise<void> {
  lanes++
  for (let head = jobs[0]; head; head = jobs[0]) {
    const { job, batch } = head
    const index = Atomics.add(job.next, 0, 1)
    if (index < job.tasks.length) {
      Atomics.store(job.takers, index, settings.thread)
      port?.postMessage(await runTask(job, index, batch))
    } else if (jobs[0] === head) jobs.shift()
  }
  lanes--
}

port.on('message', (job: Job) => {
  const { batchSize, size, layout } = settings
  const posted = { job, batch: batchViews(job.buffer, layout, batchSize, size) }
  // The batch that is to be mixed is asked for before those whose images are still to be read.
  if (job.stage === 'mix') jobs.unshift(posted)
  else jobs.push(posted)
  for (let free = LANES - lanes; free > 0; free--) void runLane()
})
