import type { App } from '../app.js'
import { drawing, find, make, mark, roving, swatch } from '../dom.js'
import { download } from '../download.js'
import { colored, drawn, openPicture, pixelsOf, type Source, sized } from '../pictures.js'
import type { Picture } from '../protocol.js'
import { Painting, unpainted } from './painting.js'
import { stem } from './try.js'

type Tool = 'brush' | 'fill' | 'eraser'

interface Entry {
  readonly source: Source
  readonly painting: Painting
  readonly button: HTMLButtonElement
}

/** The longest side that is drawn, in pixels. */
const shownSide = 768
const predictionOpacity = 0.38
const paintOpacity = 0.82

/** The part "Correct": painting on predictions, and learning from what is painted. */
export class CorrectPart {
  private readonly canvas = find('correct-canvas', HTMLCanvasElement)
  private readonly busy = find('correct-busy', HTMLDivElement)
  private readonly line = find('correct-line', HTMLParagraphElement)
  private readonly zone = find('correct-zone', HTMLDivElement)
  private readonly tools = find('correct-tools', HTMLDivElement)
  private readonly classes = find('correct-classes', HTMLDivElement)
  private readonly size = find('correct-size', HTMLInputElement)
  private readonly learned = find('correct-learned', HTMLParagraphElement)
  private readonly learnButton = find('correct-learn', HTMLButtonElement)
  private readonly undoButton = find('correct-undo', HTMLButtonElement)
  private readonly stopButton = find('correct-stop', HTMLButtonElement)
  private readonly progress = find('correct-progress', HTMLProgressElement)
  private readonly method = find('correct-method', HTMLSelectElement)
  private entries: Entry[] = []
  private entry: Entry | undefined
  private unlabeled: { readonly name: string; readonly picture: Picture }[] = []
  private tool: Tool = 'brush'
  private label = 0
  private names: readonly string[] = []
  /** Where the pointer was last, in pixels of the painting; undefined between strokes. */
  private stroke: readonly [number, number] | undefined
  private cursor: [number, number] | undefined
  private learning: AbortController | undefined

  /** @param side pixels of the longer side at which the network sees pictures */
  constructor(
    private readonly app: App,
    methods: readonly { readonly name: string; readonly text: string }[],
    private readonly side: () => number,
  ) {
    this.method.append(...methods.map(({ name, text }) => make('option', { value: name }, text)))
    roving(this.tools, ({ dataset }) => this.useTool(dataset.tool as Tool))
    roving(this.classes, ({ dataset }) => this.useClass(Number(dataset.class)))
    this.canvas.addEventListener('contextrestored', () => this.draw())
    this.canvas.onpointerdown = (event) => this.press(event)
    this.canvas.onpointermove = (event) => this.move(event)
    this.canvas.onpointerup = () => this.release()
    this.canvas.onpointercancel = () => this.release()
    this.canvas.onpointerleave = () => {
      if (!this.stroke) this.cursor = undefined
      this.draw()
    }
    this.canvas.onkeydown = (event) => this.key(event)
    this.size.oninput = () => this.draw()
    find('correct-undo-stroke', HTMLButtonElement).onclick = () => this.undoStroke()
    find('correct-clear', HTMLButtonElement).onclick = () => {
      this.entry?.painting.clear()
      this.changed()
    }
    find('correct-add', HTMLInputElement).onchange = ({ target }) =>
      this.take(target as HTMLInputElement, (files) => this.addFiles(files))
    find('correct-unlabeled', HTMLInputElement).onchange = ({ target }) =>
      this.take(target as HTMLInputElement, (files) => this.addUnlabeled(files))
    find('correct-forget', HTMLButtonElement).onclick = () => this.forgetUnlabeled()
    this.learnButton.onclick = () => void app.attempt(() => this.learn())
    this.stopButton.onclick = () => this.learning?.abort()
    this.undoButton.onclick = () => void app.attempt(() => this.undoLearning())
    find('correct-save', HTMLButtonElement).onclick = () => void app.attempt(() => this.save())
    app.client.on('learning', ({ step, steps, loss }) => {
      this.progress.value = step / steps
      this.learned.textContent = `step ${step} of ${steps}, loss ${loss.toFixed(3)}`
      this.wait(`learning: step ${step} of ${steps}`)
    })
    app.client.on('compiling', ({ what, done, all }) => {
      if (this.learning && done < all) this.wait(`compiling kernels of ${what}: ${done} of ${all}`)
    })
    app.model.follow((model) => {
      if (!model) return
      this.undoButton.disabled = model.changes === 0
      const isOther = model.classes.join('\n') !== this.names.join('\n')
      this.names = model.classes
      if (isOther) {
        // What was painted with other classes means nothing.
        for (const { painting } of this.entries) painting.labels.fill(unpainted)
        this.listClasses()
      }
      void this.predictAll()
    })
    app.machine.follow((machine) => {
      this.learnButton.disabled = machine?.adapter === undefined
      if (machine && !machine.adapter) this.learned.textContent = `learning needs WebGPU: ${machine.reason}`
    })
    this.count()
  }

  /** Adds a picture to be corrected, and shows it. */
  async add(source: Source): Promise<void> {
    const known = this.entries.find((entry) => entry.source === source)
    if (known) {
      this.open(known)
      return
    }
    const painting = new Painting(source.name, pixelsOf(source, sized(source, this.side())))
    const thumbnail = drawn(source, { width: 152, height: 120 })
    const button = make('button', { type: 'button', title: source.name }, thumbnail, make('small'))
    button.setAttribute('aria-label', source.name)
    const entry = { source, painting, button }
    button.onclick = () => this.open(entry)
    this.entries.push(entry)
    find('correct-pictures', HTMLDivElement).append(button)
    this.open(entry)
    await this.predict(entry)
    this.count()
  }

  async addFiles(files: readonly File[]): Promise<void> {
    for (const file of files) await this.add(await openPicture(file))
  }

  /** Pictures without labels, from which semi-supervised methods learn as well. */
  async addUnlabeled(files: readonly File[]): Promise<void> {
    for (const file of files) {
      const source = await openPicture(file)
      this.unlabeled.push({ name: source.name, picture: pixelsOf(source, sized(source, this.side())) })
    }
    // That is what they are given for.
    if (this.unlabeled.length > 0 && this.method.value === 'supervised') this.method.value = 'prevmatch'
    this.count()
  }

  private forgetUnlabeled(): void {
    this.unlabeled = []
    this.method.value = 'supervised'
    this.count()
  }

  /** Whether what is dropped on an element is meant as unlabeled pictures. */
  takesUnlabeled(target: EventTarget | null): boolean {
    const isOver = target instanceof Node && this.zone.contains(target)
    this.zone.toggleAttribute('data-over', isOver)
    return isOver
  }

  get isEmpty(): boolean {
    return this.entries.length === 0
  }

  private take(input: HTMLInputElement, use: (files: readonly File[]) => Promise<void>): void {
    const files = [...(input.files ?? [])]
    input.value = ''
    void this.app.attempt(() => use(files))
  }

  private open(entry: Entry): void {
    this.entry = entry
    this.cursor = undefined
    for (const { button } of this.entries) button.setAttribute('aria-pressed', String(button === entry.button))
    this.draw()
  }

  private wait(what: string | undefined): void {
    this.busy.hidden = what === undefined
    this.busy.firstElementChild?.replaceChildren(what ?? '')
  }

  private async predict({ painting }: Entry): Promise<void> {
    const { app } = this
    if (!app.model.value) return
    this.wait('segmenting')
    try {
      const { picture } = painting
      const out = { width: picture.width, height: picture.height }
      painting.prediction = (await app.client.call('segment', { picture, out, runtime: app.runtime })).labels
    } finally {
      this.wait(undefined)
    }
    this.draw()
  }

  private async predictAll(): Promise<void> {
    await this.app.attempt(async () => {
      for (const entry of this.entries) await this.predict(entry)
    })
    this.changed()
  }

  private listClasses(): void {
    const palette = this.app.model.value?.palette ?? []
    this.classes.replaceChildren(
      ...this.names.map((name, k) => {
        const key = k < 9 ? [make('kbd', {}, String(k + 1))] : []
        const button = make('button', { type: 'button' }, swatch(palette[k]), make('span', {}, name), ...key)
        button.setAttribute('role', 'radio')
        button.dataset.class = String(k)
        return button
      }),
    )
    this.useClass(0)
  }

  private useTool(tool: Tool): void {
    this.tool = tool
    mark(this.tools, ({ dataset }) => dataset.tool === tool, 'aria-checked')
    this.draw()
  }

  private useClass(label: number): void {
    if (label >= this.names.length) return
    this.label = label
    if (this.tool === 'eraser') this.useTool('brush')
    mark(this.classes, ({ dataset }) => dataset.class === String(label), 'aria-checked')
    this.draw()
  }

  private get radius(): number {
    return Number(this.size.value) / 2
  }

  private place({ clientX, clientY }: PointerEvent): [number, number] | undefined {
    const { canvas, entry } = this
    if (!entry) return undefined
    const box = canvas.getBoundingClientRect()
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height)
    const [width, height] = [canvas.width * scale, canvas.height * scale]
    const x = ((clientX - box.x - (box.width - width) / 2) / width) * entry.painting.size.width
    const y = ((clientY - box.y - (box.height - height) / 2) / height) * entry.painting.size.height
    return [x, y]
  }

  private isInside([x, y]: readonly [number, number]): boolean {
    const size = this.entry?.painting.size
    return size !== undefined && x >= 0 && y >= 0 && x < size.width && y < size.height
  }

  private press(event: PointerEvent): void {
    const place = this.place(event)
    if (!place || !this.isInside(place) || event.button !== 0) return
    this.canvas.setPointerCapture(event.pointerId)
    this.cursor = place
    this.apply(place)
    this.stroke = place
  }

  private move(event: PointerEvent): void {
    const place = this.place(event)
    if (!place) return
    this.cursor = place
    const { stroke, entry, tool } = this
    if (stroke && entry && tool !== 'fill') {
      entry.painting.line(stroke, place, this.radius, tool === 'eraser' ? unpainted : this.label)
      this.stroke = place
    }
    this.draw()
  }

  private release(): void {
    if (!this.stroke) return
    this.stroke = undefined
    this.changed()
  }

  /** Begins a stroke of the tool. */
  private apply(place: readonly [number, number]): void {
    const { entry, tool } = this
    if (!entry || this.learning) return
    const { painting } = entry
    painting.begin()
    if (tool === 'fill') painting.fill(place[0], place[1], this.label)
    else painting.spot(place[0], place[1], this.radius, tool === 'eraser' ? unpainted : this.label)
    this.draw()
  }

  private key(event: KeyboardEvent): void {
    const { entry } = this
    if (!entry) return
    const { width, height } = entry.painting.size
    const step = event.shiftKey ? 8 : 1
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key]
    if (move) {
      const [x, y] = this.cursor ?? [width / 2, height / 2]
      const within = (value: number, extent: number) => Math.min(extent - 0.5, Math.max(0.5, value))
      this.cursor = [within(x + (move[0] ?? 0), width), within(y + (move[1] ?? 0), height)]
      this.draw()
    } else if (event.key === ' ' || event.key === 'Enter') {
      this.cursor ??= [width / 2, height / 2]
      this.apply(this.cursor)
      this.changed()
    } else if (event.key === 'z' && (event.ctrlKey || event.metaKey)) this.undoStroke()
    else if (event.ctrlKey || event.metaKey || event.altKey) return
    else if (event.key === 'b') this.useTool('brush')
    else if (event.key === 'f') this.useTool('fill')
    else if (event.key === 'e') this.useTool('eraser')
    else if (event.key === '[') this.resize(-1)
    else if (event.key === ']') this.resize(1)
    else if (/^[1-9]$/.test(event.key)) this.useClass(Number(event.key) - 1)
    else return
    event.preventDefault()
  }

  private resize(by: number): void {
    this.size.value = String(Number(this.size.value) + by)
    this.draw()
  }

  private undoStroke(): void {
    if (this.entry?.painting.undo()) this.changed()
  }

  /** After the labels of the open picture have changed. */
  private changed(): void {
    this.draw()
    this.count()
  }

  private count(): void {
    let pixels = 0
    let pictures = 0
    for (const { painting, button } of this.entries) {
      const { painted } = painting
      pixels += painted
      if (painted > 0) pictures++
      const share = (100 * painted) / painting.labels.length
      const note = button.querySelector('small')
      if (note) note.textContent = painted === 0 ? '' : `${share < 1 ? '<1' : share.toFixed(0)} %`
    }
    const { length } = this.unlabeled
    const of = this.entries.length === 1 ? '1 picture' : `${this.entries.length} pictures`
    find('correct-counts', HTMLParagraphElement).textContent = `${pixels} pixels painted in ${pictures} of ${of}`
    find('correct-unlabeled-line', HTMLParagraphElement).textContent =
      length === 0
        ? 'Drop unlabeled pictures here: the semi-supervised methods learn from them, too.'
        : `${length} unlabeled: ${this.unlabeled.map(({ name }) => name).join(', ')}`
    find('correct-forget', HTMLButtonElement).hidden = length === 0
    this.canvas.dataset.painted = String(pixels)
  }

  private draw(): void {
    const { entry, canvas, app, cursor } = this
    const palette = app.model.value?.palette
    if (!entry || !palette) return
    const { painting, source } = entry
    const size = sized(source, shownSide)
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size)
    const context = drawing(canvas)
    context.imageSmoothingEnabled = true
    context.drawImage(source.drawable, 0, 0, size.width, size.height)
    context.imageSmoothingEnabled = false
    const lay = (labels: Uint8Array, opacity: number) => {
      const layer = make('canvas', { width: painting.size.width, height: painting.size.height })
      drawing(layer).putImageData(colored(labels, painting.size, palette), 0, 0)
      context.globalAlpha = opacity
      context.drawImage(layer, 0, 0, size.width, size.height)
      context.globalAlpha = 1
    }
    if (painting.prediction) lay(painting.prediction, predictionOpacity)
    lay(painting.labels, paintOpacity)
    if (cursor) this.drawCursor(context, cursor, size.width / painting.size.width)
    const at =
      cursor && this.isInside(cursor)
        ? painting.shown[Math.floor(cursor[1]) * painting.size.width + Math.floor(cursor[0])]
        : undefined
    const under = at === undefined || at === unpainted ? '' : `; under the pointer: ${this.names[at] ?? at}`
    const what = this.tool === 'eraser' ? 'eraser' : `${this.tool}: ${this.names[this.label] ?? ''}`
    this.line.textContent = `${what}${under}`
  }

  private drawCursor(context: CanvasRenderingContext2D, [x, y]: readonly [number, number], scale: number): void {
    const color = this.app.model.value?.palette[this.label] ?? [255, 255, 255]
    context.beginPath()
    context.arc(x * scale, y * scale, Math.max(4, this.tool === 'fill' ? 4 : this.radius * scale), 0, 2 * Math.PI)
    context.lineWidth = 4
    context.strokeStyle = '#000a'
    context.stroke()
    context.lineWidth = 2
    context.strokeStyle = this.tool === 'eraser' ? '#fff' : `rgb(${color.join(' ')})`
    context.stroke()
  }

  private async learn(): Promise<void> {
    const { app } = this
    const corrections = this.entries
      .filter(({ painting }) => painting.painted > 0)
      .map(({ painting: { picture, labels } }) => ({ picture, labels }))
    if (corrections.length === 0) throw new Error('nothing is painted yet: paint the right class on some pixels first')
    const steps = find('correct-steps', HTMLInputElement)
    if (!steps.reportValidity()) return
    const controller = new AbortController()
    this.learning = controller
    this.buttons(true)
    this.wait('preparing')
    try {
      const ask = {
        corrections,
        unlabeled: this.unlabeled.map(({ picture }) => picture),
        method: this.method.value,
        steps: steps.valueAsNumber,
        learningRate: Number(find('correct-rate', HTMLSelectElement).value),
      }
      const model = await app.client.call('learn', ask, { signal: controller.signal })
      this.learned.textContent = `learned ${ask.steps} steps by ${ask.method}; "Undo learning" goes back to the weights before`
      app.model.value = model
    } catch (error) {
      this.learned.textContent = controller.signal.aborted ? 'stopped: the weights are those before' : ''
      throw error
    } finally {
      this.learning = undefined
      this.buttons(false)
      this.wait(undefined)
    }
  }

  private buttons(isLearning: boolean): void {
    this.learnButton.disabled = isLearning
    this.stopButton.hidden = !isLearning
    this.progress.hidden = !isLearning
    this.progress.value = 0
    this.undoButton.disabled = isLearning || (this.app.model.value?.changes ?? 0) === 0
  }

  private async undoLearning(): Promise<void> {
    this.app.model.value = await this.app.client.call('undo', undefined)
    this.learned.textContent = 'back to the weights before'
  }

  private async save(): Promise<void> {
    const { model, client } = this.app
    download(`${stem(model.value?.name ?? 'network')}.safetensors`, await client.call('weights', undefined))
  }
}
