import type { App } from '../app.js'
import { arrowMove, drawing, find, make, shownBox, swatch } from '../dom.js'
import { download, maskPng } from '../download.js'
import { milliseconds, stem } from '../format.js'
import { colored, drawn, openPicture, paintImage, pixelsOf, type Source, sceneSource, sized } from '../pictures.js'
import type { Segmentation } from '../protocol.js'

/** Long side of what the page draws, in pixels. */
const shownSide = 640
/** Larger masks are not made for a download. */
const largestMask = 4096
const paintedScenes = [3, 7, 12, 21, 30]

/** The part "Try": a picture, the classes of its pixels over it, and what can be taken away. */
export class TryPart {
  private readonly canvas = find('try-canvas', HTMLCanvasElement)
  private readonly video = find('try-video', HTMLVideoElement)
  private readonly under = find('try-under', HTMLOutputElement)
  private readonly busy = find('try-busy', HTMLDivElement)
  private readonly line = find('try-line', HTMLParagraphElement)
  private readonly side = find('try-side', HTMLSelectElement)
  private readonly opacity = find('try-opacity', HTMLInputElement)
  private readonly webcam = find('try-webcam', HTMLButtonElement)
  private source: Source | undefined
  private result: Segmentation | undefined
  /** The picture and the mask, at the size that is drawn. */
  private layers: { readonly picture: HTMLCanvasElement; readonly mask: HTMLCanvasElement } | undefined
  private stream: MediaStream | undefined
  /** Numbers the predictions, so that one that is overtaken is not shown. */
  private turn = 0
  /** Where the keyboard looks, as shares of width and height. */
  private cursor = { x: 0.5, y: 0.5 }

  constructor(private readonly app: App) {
    this.opacity.oninput = () => this.draw()
    this.side.onchange = () => void this.predict()
    this.canvas.addEventListener('contextrestored', () => {
      this.draw()
      void this.predict()
    })
    this.canvas.onpointermove = (event) => this.point(event)
    this.canvas.onpointerdown = (event) => this.point(event)
    this.canvas.onpointerleave = () => this.hideReadout()
    this.canvas.onblur = () => this.hideReadout()
    this.canvas.onkeydown = (event) => this.look(event)
    this.webcam.onclick = () => void app.attempt(() => (this.stream ? this.stopWebcam() : this.startWebcam()))
    find('try-picture', HTMLInputElement).onchange = ({ target }) => this.take(target as HTMLInputElement)
    find('try-weights', HTMLInputElement).onchange = ({ target }) => this.take(target as HTMLInputElement)
    find('try-mask', HTMLButtonElement).onclick = () => void app.attempt(() => this.saveMask())
    find('try-onnx', HTMLButtonElement).onclick = () => void app.attempt(() => this.saveOnnx())
    find('try-reset', HTMLButtonElement).onclick = () => void app.attempt(() => this.shipped())
    app.model.follow((model) => {
      this.describe()
      if (model) void this.predict()
    })
    app.chosen.follow(() => void this.predict())
    app.client.on('compiling', ({ what, done, all }) => {
      if (what === 'the prediction' && !this.busy.hidden) this.wait(`compiling kernels: ${done} of ${all}`)
    })
  }

  /** Loads the network that comes with the page, and paints pictures for it. */
  async start(): Promise<void> {
    const strip = find('try-samples', HTMLDivElement)
    for (const [i, index] of paintedScenes.entries()) {
      const scene = await this.app.client.call('scene', { seed: 4, index, size: 224 })
      const source = sceneSource(`painted scene ${i + 1}`, scene)
      this.addSample(source)
      if (i === 0) void this.open(source)
    }
    strip.dataset.ready = 'true'
  }

  /** Gives the page the network that comes with it. */
  async shipped(): Promise<void> {
    const url = new URL('./weights/scenes.safetensors', import.meta.url)
    const answer = await fetch(url)
    if (!answer.ok) throw new Error(`the weights of the page cannot be read (${answer.status}): reload it`)
    await this.app.loadWeights('scenes.safetensors', await answer.arrayBuffer())
  }

  /** Shows a picture and predicts it. */
  async open(source: Source): Promise<void> {
    this.source = source
    this.result = undefined
    const size = sized(source, shownSide)
    const mask = make('canvas', size)
    this.layers = { picture: drawn(source, size), mask }
    this.mark()
    this.draw()
    await this.predict()
  }

  /** Takes files of any kind: pictures and weights. */
  async openFiles(files: readonly File[]): Promise<void> {
    for (const file of files) {
      if (/\.(safetensors|pth|pt|ckpt|bin|onnx|zip)$/i.test(file.name)) {
        this.wait(`reading ${file.name}`)
        try {
          await this.app.loadWeights(file.name, await file.arrayBuffer())
        } finally {
          this.busy.hidden = true
        }
        continue
      }
      const source = await openPicture(file)
      await this.stopWebcam()
      this.addSample(source)
      await this.open(source)
    }
  }

  /** Pixels of the longer side at which the network sees pictures. */
  get seenSide(): number {
    return Number(this.side.value)
  }

  get picture(): Source | undefined {
    return this.source
  }

  private take(input: HTMLInputElement): void {
    const files = [...(input.files ?? [])]
    input.value = ''
    void this.app.attempt(() => this.openFiles(files))
  }

  private addSample(source: Source): void {
    const button = make('button', { type: 'button', title: source.name }, drawn(source, { width: 152, height: 120 }))
    button.setAttribute('aria-label', source.name)
    button.onclick = () =>
      void this.app.attempt(async () => {
        await this.stopWebcam()
        await this.open(source)
      })
    samples.set(button, source)
    find('try-samples', HTMLDivElement).append(button)
  }

  private mark(): void {
    for (const button of find('try-samples', HTMLDivElement).querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(samples.get(button) === this.source))
    }
  }

  private wait(what: string): void {
    this.busy.hidden = false
    this.busy.firstElementChild?.replaceChildren(what)
  }

  private async predict(): Promise<void> {
    const { source, app } = this
    if (!source || !app.model.value || this.stream) return
    const turn = ++this.turn
    this.wait('segmenting')
    await app.attempt(async () => {
      const seen = sized(source, this.seenSide)
      const ask = { picture: pixelsOf(source, seen), out: sized(source, shownSide), runtime: app.runtime }
      const result = await app.client.call('segment', ask)
      if (turn === this.turn) this.show(result)
    })
    if (turn === this.turn) this.busy.hidden = true
  }

  private show(result: Segmentation): void {
    const { model } = this.app
    if (!this.layers || !model.value) return
    this.result = result
    this.app.predicted.value = result
    paintImage(this.layers.mask, colored(result.labels, result, model.value.palette))
    this.draw()
    this.describe()
    const where = result.runtime === 'webgpu' ? 'WebGPU' : 'WebAssembly (onnxruntime-web)'
    this.line.textContent = `${milliseconds(result.milliseconds)} for the network on ${where}`
    this.canvas.dataset.labels = String(result.labels.length)
  }

  private draw(): void {
    const { layers, canvas } = this
    if (!layers) return
    const { width, height } = layers.picture
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height })
    const context = drawing(canvas)
    context.drawImage(layers.picture, 0, 0)
    if (!this.result) return
    context.globalAlpha = Number(this.opacity.value) / 100
    context.drawImage(layers.mask, 0, 0)
    context.globalAlpha = 1
  }

  /** The classes with their shares of the picture, the largest first; and the network. */
  private describe(): void {
    const { value: model } = this.app.model
    if (!model) return
    const { classes, palette, name, bytes, parameters, architecture } = model
    const size = bytes < 1e6 ? `${Math.round(bytes / 1000)} KB` : `${(bytes / 1e6).toFixed(1)} MB`
    const count =
      parameters < 1e6 ? `${Math.round(parameters / 1000)} thousand` : `${(parameters / 1e6).toFixed(1)} million`
    find('try-model', HTMLParagraphElement).textContent =
      `${name}: ${architecture}, ${classes.length} classes, ${count} weights, ${size}`
    find('try-reset', HTMLButtonElement).hidden = name === 'scenes.safetensors' && model.changes === 0
    const counts = new Float64Array(classes.length)
    for (const label of this.result?.labels ?? []) counts[label] = (counts[label] ?? 0) + 1
    const pixels = this.result?.labels.length ?? 0
    const shares = classes.map((_, k) => (pixels === 0 ? 0 : (counts[k] ?? 0) / pixels))
    const order = classes.map((_, k) => k).sort((a, b) => (shares[b] ?? 0) - (shares[a] ?? 0))
    find('try-legend', HTMLUListElement).replaceChildren(
      ...order.map((k) => {
        const share = shares[k] ?? 0
        const fill = make('i')
        fill.style.width = `${100 * share}%`
        fill.style.background = `rgb(${(palette[k] ?? [128, 128, 128]).join(' ')})`
        const shown = pixels === 0 ? '' : `${(100 * share).toFixed(1)} %`
        const item = make(
          'li',
          {},
          swatch(palette[k]),
          make('span', {}, classes[k] ?? `${k}`),
          make('span', {}, shown),
          make('div', { className: 'bar' }, fill),
        )
        item.dataset.class = String(k)
        return item
      }),
    )
  }

  private point({ clientX, clientY }: PointerEvent): void {
    const box = shownBox(this.canvas)
    this.cursor = { x: (clientX - box.x) / box.width, y: (clientY - box.y) / box.height }
    this.readOut()
  }

  private look(event: KeyboardEvent): void {
    const move = arrowMove(event, event.shiftKey ? 0.1 : 0.02)
    if (!move) return
    event.preventDefault()
    const within = (value: number) => Math.min(0.999, Math.max(0, value))
    this.cursor = { x: within(this.cursor.x + move[0]), y: within(this.cursor.y + move[1]) }
    this.readOut()
  }

  /** Says class and confidence where the pointer, or the keyboard, is. */
  private readOut(): void {
    const { result, under, cursor } = this
    const { value: model } = this.app.model
    const inside = cursor.x >= 0 && cursor.x < 1 && cursor.y >= 0 && cursor.y < 1
    if (!result || !model || !inside) {
      this.hideReadout()
      return
    }
    const at = Math.floor(cursor.y * result.height) * result.width + Math.floor(cursor.x * result.width)
    const label = result.labels[at] ?? 0
    const text = `${model.classes[label] ?? label} · ${(100 * (result.confidence[at] ?? 0)).toFixed(0)} %`
    under.replaceChildren(swatch(model.palette[label]), text)
    under.hidden = false
    const box = shownBox(this.canvas)
    const stage = find('try-stage', HTMLElement).getBoundingClientRect()
    const left = box.x - stage.x + cursor.x * box.width + 14
    const top = box.y - stage.y + cursor.y * box.height + 16
    under.style.left = `${Math.max(4, Math.min(left, stage.width - under.offsetWidth - 6))}px`
    under.style.top = `${Math.max(4, Math.min(top, stage.height - under.offsetHeight - 6))}px`
    for (const item of find('try-legend', HTMLUListElement).children) {
      if (item instanceof HTMLElement) item.toggleAttribute('data-active', item.dataset.class === String(label))
    }
  }

  private hideReadout(): void {
    this.under.hidden = true
  }

  private async startWebcam(): Promise<void> {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' }, audio: false })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new Error(`no webcam: ${reason}; allow it in the browser, or open a picture`)
    }
    this.webcam.setAttribute('aria-pressed', 'true')
    this.video.srcObject = this.stream
    void this.app.attempt(async () => {
      try {
        await this.video.play()
        await this.followWebcam()
      } catch (error) {
        await this.stopWebcam()
        throw error
      }
    })
  }

  /** One picture after another, each when the one before is shown. */
  private async followWebcam(): Promise<void> {
    const { app, video, stream } = this
    while (stream && this.stream === stream) {
      const source = { name: 'webcam', drawable: video, width: video.videoWidth, height: video.videoHeight }
      const shown = sized(source, shownSide)
      const picture = drawn(source, shown)
      const seen = sized(source, this.seenSide)
      const result = await app.client.call('segment', {
        picture: pixelsOf(source, seen),
        out: shown,
        runtime: app.runtime,
      })
      if (this.stream !== stream) return
      this.layers = { picture, mask: make('canvas', shown) }
      this.source = { ...source, drawable: picture, ...shown }
      this.mark()
      this.show(result)
    }
  }

  private async stopWebcam(): Promise<void> {
    if (!this.stream) return
    for (const track of this.stream.getTracks()) track.stop()
    this.stream = undefined
    this.webcam.setAttribute('aria-pressed', 'false')
  }

  private async saveMask(): Promise<void> {
    const { source, app } = this
    if (!source) return
    const out = Math.max(source.width, source.height) > largestMask ? sized(source, largestMask) : source
    const { width, height } = out
    const picture = pixelsOf(source, sized(source, this.seenSide))
    const { labels } = await app.client.call('segment', { picture, out: { width, height }, runtime: app.runtime })
    download(`${stem(source.name)}-mask.png`, await maskPng(labels, out), 'image/png')
  }

  private async saveOnnx(): Promise<void> {
    const { model, client } = this.app
    const { bytes, size } = await client.call('onnx', sized(this.source ?? { width: 1, height: 1 }, this.seenSide))
    const suffix = size ? `-${size.width}x${size.height}` : ''
    download(`${stem(model.value?.name ?? 'network')}${suffix}.onnx`, bytes)
  }
}

const samples = new WeakMap<HTMLElement, Source>()
