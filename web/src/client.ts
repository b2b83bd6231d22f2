import type { CallName, Calls, Events, Reply } from './protocol.js'

/** What a request of the worker failed with; the message is the product's own. */
export class WorkerError extends Error {
  constructor(
    override readonly name: string,
    message: string,
  ) {
    super(message)
  }
}

interface Pending {
  readonly resolve: (answer: unknown) => void
  readonly reject: (error: Error) => void
}

type Listener<Name extends keyof Events> = (detail: Events[Name]) => void

/** The page's end of the line to the worker, in which everything is computed. */
export class Client {
  private readonly worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'atrous' })
  private readonly pending = new Map<number, Pending>()
  private readonly listeners = new Map<keyof Events, Listener<never>[]>()
  private last = 0

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => this.receive(data)
    this.worker.onerror = (event) => {
      const error = new WorkerError(
        'Error',
        `the worker cannot go on: ${event.message || 'it does not load'}; reload the page`,
      )
      for (const { reject } of this.pending.values()) reject(error)
      this.pending.clear()
    }
  }

  /** Throws a WorkerError where the worker refuses. `signal` ends what was begun. */
  call<Name extends CallName>(
    call: Name,
    ask: Calls[Name]['ask'],
    { transfer = [], signal }: { readonly transfer?: Transferable[]; readonly signal?: AbortSignal } = {},
  ): Promise<Calls[Name]['answer']> {
    const id = ++this.last
    this.worker.postMessage({ id, call, ask }, transfer)
    signal?.addEventListener('abort', () => this.worker.postMessage({ abort: id }), { once: true })
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve: resolve as Pending['resolve'], reject })
    })
  }

  on<Name extends keyof Events>(event: Name, listener: Listener<Name>): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener as Listener<never>])
  }

  private receive(reply: Reply): void {
    if ('event' in reply) {
      for (const listener of this.listeners.get(reply.event) ?? []) listener(reply.detail as never)
      return
    }
    const pending = this.pending.get(reply.id)
    this.pending.delete(reply.id)
    if ('error' in reply) pending?.reject(new WorkerError(reply.error.name, reply.error.message))
    else pending?.resolve(reply.answer)
  }
}
