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
  private readonly worker: Worker
  private readonly pending = new Map<number, Pending>()
  private readonly listeners = new Map<keyof Events, Listener<never>[]>()
  private last = 0
  private hasStarted = false
  /** Why the worker answers no more. */
  private fault: WorkerError | undefined

  /** @param onFault called once, where the worker cannot go on: from then on every call is refused */
  constructor(private readonly onFault: (error: WorkerError) => void) {
    // Locks are shared by all pages of an origin.
    const name = `atrous ${Date.now()} ${Math.random()}`
    this.worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name })
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => this.receive(data)
    this.worker.onerror = ({ message }) => {
      // Calls catch what they throw: a worker that runs goes on behind other errors.
      if (!this.hasStarted) this.fail(message || 'it does not load')
      else this.tell('log', { line: message })
    }
    this.on('started', () => {
      this.hasStarted = true
      // The worker holds this lock for as long as it lives; no event tells of its end.
      void navigator.locks?.request(name, () => this.fail('it ended'))
    })
  }

  /** Throws a WorkerError where the worker refuses, or cannot go on. `signal` ends what was begun. */
  call<Name extends CallName>(
    call: Name,
    ask: Calls[Name]['ask'],
    { transfer = [], signal }: { readonly transfer?: Transferable[]; readonly signal?: AbortSignal } = {},
  ): Promise<Calls[Name]['answer']> {
    if (this.fault) return Promise.reject(this.fault)
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

  private fail(reason: string): void {
    if (this.fault) return
    this.fault = new WorkerError('Error', `the worker of the page cannot go on: ${reason}; reload the page`)
    this.worker.terminate()
    for (const { reject } of this.pending.values()) reject(this.fault)
    this.pending.clear()
    this.onFault(this.fault)
  }

  private tell(event: keyof Events, detail: unknown): void {
    for (const listener of this.listeners.get(event) ?? []) listener(detail as never)
  }

  private receive(reply: Reply): void {
    if ('event' in reply) {
      this.tell(reply.event, reply.detail)
      return
    }
    const pending = this.pending.get(reply.id)
    this.pending.delete(reply.id)
    if ('error' in reply) pending?.reject(new WorkerError(reply.error.name, reply.error.message))
    else pending?.resolve(reply.answer)
  }
}
