import type { App } from '../app.js'
import { PairChart } from '../charts.js'
import { find, make, swatch } from '../dom.js'
import { milliseconds as inWords } from '../format.js'
import { colored, type Palette, paintImage, sceneImage } from '../pictures.js'
import type { Scene, Side, WatchEvent } from '../protocol.js'

const sides: readonly Side[] = ['supervised', 'method']

/** The part "Watch it learn": two trainings beside each other. */
export class WatchPart {
  private readonly form = find('watch-form', HTMLFormElement)
  private readonly method = find('watch-method', HTMLSelectElement)
  private readonly seed = find('watch-seed', HTMLInputElement)
  private readonly go = find('watch-go', HTMLButtonElement)
  private readonly restart = find('watch-restart', HTMLButtonElement)
  private readonly line = find('watch-line', HTMLOutputElement)
  private readonly progress = find('watch-progress', HTMLProgressElement)
  private state: 'idle' | 'running' | 'paused' | 'done' = 'idle'
  private charts: { readonly loss: PairChart; readonly miou: PairChart } | undefined
  private steps = 1
  private readonly at = { supervised: 0, method: 0 }
  private size = 64
  /** Numbers the runs: the end of one that was replaced says nothing. */
  private run = 0
  /** The method beside `supervised`. */
  private watched = ''

  constructor(
    private readonly app: App,
    methods: readonly { readonly name: string; readonly text: string }[],
    classes: readonly string[],
    private readonly palette: Palette,
  ) {
    this.method.append(...methods.map(({ name, text }) => make('option', { value: name }, text)))
    const link = new URLSearchParams(location.hash.split('?')[1] ?? '')
    const [method, seed] = [link.get('method'), link.get('seed')]
    if (methods.some(({ name }) => name === method)) this.method.value = method ?? ''
    if (seed !== null && /^\d{1,6}$/.test(seed)) this.seed.value = seed
    this.form.onsubmit = (event) => {
      event.preventDefault()
      if (this.state === 'running' || this.state === 'paused') void app.attempt(() => this.pause())
      else void this.start()
    }
    this.restart.onclick = () => void this.start()
    this.method.onchange = () => {
      if (this.state !== 'running' && this.state !== 'paused') this.name()
    }
    find('watch-share', HTMLButtonElement).onclick = () => void app.attempt(() => this.share())
    app.client.on('watch', (event) => this.receive(event))
    find('watch-legend', HTMLUListElement).append(...classes.map((name, k) => make('li', {}, swatch(palette[k]), name)))
    this.name()
    for (const side of sides) this.empty(find(`watch-masks-${side}`, HTMLDivElement), 6)
    this.empty(find('watch-labels', HTMLDivElement), 6)
    this.empty(find('watch-truth', HTMLDivElement), 12)
  }

  /** Begins, from the seed that is set. */
  async start(): Promise<void> {
    if (!this.form.reportValidity()) return
    const run = ++this.run
    this.state = 'running'
    this.buttons()
    this.name()
    this.line.textContent = 'painting scenes'
    let isDone = false
    await this.app.attempt(async () => {
      await this.app.client.call('watch', { method: this.watched, seed: Number(this.seed.value) })
      isDone = true
    })
    if (run !== this.run) return
    this.state = isDone ? 'done' : 'idle'
    this.line.textContent = isDone ? `done: ${this.steps} steps of each` : 'ended'
    this.buttons()
  }

  private async pause(): Promise<void> {
    this.state = this.state === 'paused' ? 'running' : 'paused'
    this.buttons()
    await this.app.client.call('pause', { paused: this.state === 'paused' })
  }

  private buttons(): void {
    this.go.textContent = { idle: 'Start', done: 'Start', running: 'Pause', paused: 'Go on' }[this.state]
    this.restart.disabled = this.state === 'idle'
    this.form.dataset.state = this.state
  }

  private name(): void {
    this.watched = this.method.value
    find('watch-name', HTMLElement).textContent = this.watched
  }

  private async share(): Promise<void> {
    const url = new URL(location.href)
    url.hash = `watch?method=${this.method.value}&seed=${this.seed.value}`
    history.replaceState(null, '', url)
    try {
      await navigator.clipboard.writeText(url.href)
      this.app.say('the link is copied: it begins the same trainings')
    } catch {
      this.app.say('the link is in the address bar: it begins the same trainings')
    }
  }

  private receive(event: WatchEvent): void {
    if (event.kind === 'scenes') this.scenes(event.labeled, event.heldOut, event.steps)
    else if (event.kind === 'compiling') this.compiling(event.side, event.done, event.all)
    else if (event.kind === 'loss') this.loss(event)
    else if (event.kind === 'masks') this.masks(event)
    else this.app.say(`${event.reason}: going on from step ${event.step}`)
  }

  /** The first message of a run: until here come those of the one that it replaces. */
  private scenes(labeled: readonly Scene[], heldOut: readonly Scene[], steps: number): void {
    this.charts?.loss.destroy()
    this.charts?.miou.destroy()
    const names = ['supervised', this.watched] as const
    this.charts = {
      loss: new PairChart(find('watch-loss', HTMLDivElement), names, [0, null]),
      miou: new PairChart(find('watch-miou', HTMLDivElement), names, [0, 100]),
    }
    this.progress.value = 0
    Object.assign(this.at, { supervised: 0, method: 0 })
    for (const side of sides) find(`watch-miou-${side}`, HTMLElement).textContent = '–'
    this.steps = steps
    this.line.textContent = 'what both begin with'
    this.size = heldOut[0]?.size ?? 64
    const told = labeled.map((scene, i) => this.picture(scene, `labeled scene ${i + 1}`))
    const labels = labeled.map((scene, i) => this.label(scene, `label of scene ${i + 1}`))
    find('watch-labels', HTMLDivElement).replaceChildren(...told, ...labels)
    const pictures = heldOut.map((scene, i) => this.picture(scene, `held-out scene ${i + 1}`))
    const truths = heldOut.map((scene, i) => this.label(scene, `truth of scene ${i + 1}`))
    find('watch-truth', HTMLDivElement).replaceChildren(...pictures, ...truths)
    for (const side of sides) this.empty(find(`watch-masks-${side}`, HTMLDivElement), heldOut.length)
  }

  private compiling(side: Side, done: number, all: number): void {
    const state = find(`watch-state-${side}`, HTMLElement)
    state.textContent = done < all ? `compiling kernels: ${done} of ${all}` : this.about(side)
  }

  private about(side: Side): string {
    return side === 'supervised' ? 'learns from three labels alone' : 'and from unlabeled scenes besides'
  }

  private loss({ side, step, loss, milliseconds }: WatchEvent & { kind: 'loss' }): void {
    this.at[side] = step
    this.charts?.loss.add(side === 'supervised' ? 0 : 1, step, loss)
    find(`watch-state-${side}`, HTMLElement).textContent =
      `step ${step}, loss ${loss.toFixed(3)}, ${inWords(milliseconds)}`
    const done = Math.min(this.at.supervised, this.at.method)
    this.progress.value = done / this.steps
    this.line.textContent = `step ${done} of ${this.steps}`
  }

  private masks({ side, step, miou, masks }: WatchEvent & { kind: 'masks' }): void {
    this.charts?.miou.add(side === 'supervised' ? 0 : 1, step, miou)
    find(`watch-miou-${side}`, HTMLElement).textContent = miou.toFixed(1)
    const place = find(`watch-masks-${side}`, HTMLDivElement)
    const size = { width: this.size, height: this.size }
    for (const [i, canvas] of [...place.querySelectorAll('canvas')].entries()) {
      const mask = masks[i]
      if (mask) paintImage(canvas, colored(mask, size, this.palette))
    }
    place.dataset.step = String(step)
  }

  private picture(scene: Scene, label: string): HTMLCanvasElement {
    const canvas = described(label)
    paintImage(canvas, sceneImage(scene))
    return canvas
  }

  private label(scene: Scene, label: string): HTMLCanvasElement {
    const canvas = described(label)
    paintImage(canvas, colored(scene.label, { width: scene.size, height: scene.size }, this.palette))
    return canvas
  }

  private empty(place: HTMLElement, count: number): void {
    place.replaceChildren(...Array.from({ length: count }, (_, i) => described(`prediction for scene ${i + 1}`)))
  }
}

function described(label: string): HTMLCanvasElement {
  const canvas = make('canvas', { width: 64, height: 64 })
  canvas.setAttribute('role', 'img')
  canvas.setAttribute('aria-label', label)
  return canvas
}
