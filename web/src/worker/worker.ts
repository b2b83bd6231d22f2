import type { Abort, CallName, Calls, Model, Reply, Request } from '../protocol.js'
import { log, tell } from './host.js'
import { DeviceKeeper } from './machine.js'
import { Network } from './network.js'
import { paint } from './watch/scenes.js'
import { Watch } from './watch/watch.js'

const keeper = new DeviceKeeper()
let network: Network | undefined
let watch: Watch | undefined
/** Ends the trainings that are watched. */
let stopping = new AbortController()
let watching: Promise<void> = Promise.resolve()
/** What the network is asked is answered in order: its predictor computes one picture at a time. */
let queue: Promise<unknown> = Promise.resolve()

function inOrder<T>(work: () => Promise<T>): Promise<T> {
  const done = queue.then(work, work)
  queue = done.catch(() => undefined)
  return done
}

/** Weights before each training in the page. */
let earlier: Uint8Array<ArrayBuffer>[] = []

async function replace(next: Network): Promise<Model> {
  const model = next.describe(earlier.length)
  await network?.destroy()
  network = next
  return model
}

function loaded(): Network {
  if (!network) throw new Error('there is no network yet: open a file of weights')
  return network
}

type Answers = {
  readonly [Name in CallName]: (ask: Calls[Name]['ask'], signal: AbortSignal) => Promise<Calls[Name]['answer']>
}

const answers: Answers = {
  open: () => keeper.look(),
  load: ({ name, bytes }) =>
    inOrder(async () => {
      const next = new Network(name, new Uint8Array(bytes))
      earlier = []
      return replace(next)
    }),
  segment: ({ picture, out, runtime }) => inOrder(() => loaded().segment(keeper, picture, out, runtime)),
  learn: (options, signal) =>
    inOrder(async () => {
      const before = loaded()
      const bytes = await before.learn(keeper, options, signal)
      earlier.push(before.bytes)
      return replace(new Network(before.name, bytes))
    }),
  undo: () =>
    inOrder(async () => {
      const bytes = earlier.pop()
      if (!bytes) throw new Error('there is nothing to go back to: the weights are those of the file')
      return replace(new Network(loaded().name, bytes))
    }),
  weights: async () => loaded().bytes,
  onnx: async (size) => loaded().onnx(size),
  watch: async (options) => {
    stopping.abort()
    stopping = new AbortController()
    const { signal } = stopping
    const next = new Watch(keeper, options, signal)
    watch = next
    // Others may have been asked for while those before came to their end.
    watching = watching.catch(() => undefined).then(() => (signal.aborted ? undefined : next.run()))
    await watching
    return undefined
  },
  pause: async ({ paused }) => {
    watch?.pause(paused)
    return undefined
  },
  scene: async ({ seed, index, size }) => paint(seed, index, size),
}

const running = new Map<number, AbortController>()

async function answer({ id, call, ask }: Request): Promise<void> {
  const controller = new AbortController()
  running.set(id, controller)
  let reply: Reply
  try {
    reply = {
      id,
      answer: await (answers[call] as (ask: unknown, signal: AbortSignal) => Promise<unknown>)(ask, controller.signal),
    }
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error))
    reply = { id, error: { name, message } }
  } finally {
    running.delete(id)
  }
  postMessage(reply)
}

self.onmessage = ({ data }: MessageEvent<Request | Abort>) => {
  if ('abort' in data) running.get(data.abort)?.abort()
  else void answer(data)
}

self.addEventListener('unhandledrejection', (event) => log(String(event.reason)))
/** Lasts as long as the worker: when the page gets the lock, the worker has ended. */
const life = new Promise<never>(() => {})
const start = (): Promise<never> => {
  tell('started', undefined)
  log('the worker is there')
  return life
}
// Pages of insecure origins have no locks.
void (navigator.locks ? navigator.locks.request(self.name, start) : start())
