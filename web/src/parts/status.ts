import type { App } from '../app.js'
import { find, make } from '../dom.js'
import { milliseconds } from '../format.js'
import { pixelsOf, type Source, sized } from '../pictures.js'
import type { Machine, Runtime } from '../protocol.js'

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 23 ? 1 : 0)} MiB`

/** The part "Status": what there is to compute on, and what happened. */
export class StatusPart {
  private readonly facts = new Map<string, string>()

  /** @param picture what is predicted where both runtimes are measured */
  constructor(
    private readonly app: App,
    private readonly picture: () => Source | undefined,
  ) {
    const runtime = find('status-runtime', HTMLSelectElement)
    runtime.onchange = () => {
      app.chosen.value = runtime.value as Runtime
    }
    app.machine.follow((machine) => {
      if (!machine) return
      this.describe(machine)
      if (!app.chosen.value) runtime.value = machine.runtime
      runtime.options[0]?.toggleAttribute('disabled', !machine.adapter)
    })
    app.predicted.follow((last) => {
      if (last) this.note('last prediction', `${milliseconds(last.milliseconds)} ${names[last.runtime]}`)
    })
    app.client.on('memory', ({ what, bytes }) => this.note(`memory of ${what}`, megabytes(bytes)))
    app.client.on('compiling', ({ what, done, all }) =>
      this.note(`kernels of ${what}`, done < all ? `${done} of ${all} compiled` : `${all}`),
    )
    app.client.on('log', ({ line }) => app.log(line))
    app.client.on('watch', (event) => {
      if (event.kind === 'loss')
        this.note(
          `step of the ${event.side === 'method' ? 'chosen method' : 'supervised one'}`,
          `${event.milliseconds.toFixed(1)} ms`,
        )
    })
    find('status-measure', HTMLButtonElement).onclick = ({ target }) =>
      void app.attempt(() => this.measure(target as HTMLButtonElement))
  }

  private describe({ adapter, reason, runtime }: Machine): void {
    const rows: [string, string][] = adapter
      ? [
          ['adapter', adapter.name],
          ['vendor', adapter.vendor || 'not told'],
          ['kind', adapter.software ? 'software: it computes on the processor' : 'a GPU'],
          ['predictions', runtime === 'webgpu' ? 'on WebGPU' : 'in WebAssembly, which is faster here'],
          ['features', adapter.features.join(', ') || 'none'],
          ...Object.entries(adapter.limits).map(([name, value]): [string, string] => [
            words(name),
            /Size$/.test(name) && value >= 2 ** 20 ? megabytes(value) : value.toLocaleString('en'),
          ]),
        ]
      : [
          ['adapter', 'none'],
          ['why', reason ?? 'unknown'],
          ['predictions', 'in WebAssembly'],
        ]
    find('status-adapter', HTMLDListElement).replaceChildren(...pairs(rows))
  }

  private note(name: string, value: string): void {
    this.facts.set(name, value)
    find('status-work', HTMLDListElement).replaceChildren(...pairs([...this.facts]))
  }

  /** Milliseconds of a picture on both runtimes: the median of several, after one that compiles. */
  private async measure(button: HTMLButtonElement): Promise<void> {
    const { app } = this
    const source = this.picture()
    if (!source) return
    button.disabled = true
    try {
      const rows: [string, string][] = []
      const runtimes: readonly Runtime[] = app.machine.value?.adapter ? ['webgpu', 'wasm'] : ['wasm']
      for (const side of [64, 128]) {
        const picture = pixelsOf(source, sized(source, side))
        for (const runtime of runtimes) {
          const times: number[] = []
          for (let run = 0; run < 8; run++) {
            times.push((await app.client.call('segment', { picture, out: picture, runtime })).milliseconds)
          }
          const [first = 0, ...rest] = times
          const median = rest.sort((a, b) => a - b)[3] ?? 0
          rows.push([`${side} px ${names[runtime]}`, `${milliseconds(median)}; the first time ${milliseconds(first)}`])
          find('status-measured', HTMLDListElement).replaceChildren(...pairs(rows))
        }
      }
    } finally {
      button.disabled = false
    }
  }
}

const names = { webgpu: 'on WebGPU', wasm: 'in WebAssembly' } as const

const pairs = (rows: readonly (readonly [string, string])[]): HTMLElement[] =>
  rows.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)])

/** `maxBufferSize` in words. */
const words = (name: string): string =>
  name
    .replace(/^max/, '')
    .replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
    .trim()
