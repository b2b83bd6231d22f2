import { Client, type WorkerError } from './client.js'
import { find, make } from './dom.js'
import type { Machine, Model, Runtime, Segmentation } from './protocol.js'

/** A value that others follow. */
export class Watched<T> {
  private readonly followers: ((value: T) => void)[] = []

  constructor(private current: T) {}

  get value(): T {
    return this.current
  }

  set value(value: T) {
    this.current = value
    for (const follower of this.followers) follower(value)
  }

  /** Calls `follower` with the present value and each later one. */
  follow(follower: (value: T) => void): void {
    this.followers.push(follower)
    follower(this.current)
  }
}

/** What all parts of the page share. */
export class App {
  /** Why nothing can be computed any more. */
  readonly fault = new Watched<WorkerError | undefined>(undefined)
  readonly client = new Client((error) => {
    this.fault.value = error
  })
  readonly machine = new Watched<Machine | undefined>(undefined)
  readonly model = new Watched<Model | undefined>(undefined)
  readonly predicted = new Watched<Segmentation | undefined>(undefined)
  /** What the visitor chose for predictions; undefined leaves it to the machine. */
  readonly chosen = new Watched<Runtime | undefined>(undefined)
  private timer: ReturnType<typeof setTimeout> | undefined

  get runtime(): Runtime {
    return this.chosen.value ?? this.machine.value?.runtime ?? 'wasm'
  }

  log(line: string): void {
    const list = find('status-log', HTMLOListElement)
    const time = new Date()
    const shown = make('time', { dateTime: time.toISOString() }, time.toTimeString().slice(0, 8))
    list.prepend(make('li', {}, shown, make('span', {}, line)))
    while (list.childElementCount > 200) list.lastElementChild?.remove()
  }

  /** Shows a line for some seconds. Errors stay in the log as well. */
  say(line: string, kind: 'plain' | 'error' = 'plain'): void {
    const toast = find('toast', HTMLDivElement)
    toast.textContent = line
    toast.dataset.kind = kind
    toast.hidden = false
    clearTimeout(this.timer)
    this.timer = setTimeout(
      () => {
        toast.hidden = true
      },
      kind === 'error' ? 12_000 : 4000,
    )
    if (kind === 'error') this.log(line)
  }

  /** Runs what a visitor asked for, and shows what goes wrong. */
  async attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action()
    } catch (error) {
      if (error instanceof Error && error.name === 'AbortError') return
      this.say(error instanceof Error ? error.message : String(error), 'error')
    }
  }

  /** Gives the worker a file of weights. */
  async loadWeights(name: string, bytes: ArrayBuffer): Promise<void> {
    this.model.value = await this.client.call('load', { name, bytes }, { transfer: [bytes] })
    if (this.model.value.note) this.log(this.model.value.note)
  }
}
