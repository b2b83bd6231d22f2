import type { App } from '../app.js'
import { find, make } from '../dom.js'
import { download } from '../download.js'
import { stem } from '../format.js'
import { drawn, openPicture, pixelsOf, type Source, sized } from '../pictures.js'
import type { Picture } from '../protocol.js'
import { PaintCanvas, type Subject } from './paint-canvas.js'
import { Painting } from './painting.js'

interface Entry extends Subject {
  readonly button: HTMLButtonElement
}

/** Networks whose encoder takes most of a step, and gives features from which a head learns well. */
const transformers: ReadonlySet<string> = new Set(['segformer', 'dpt'])

/** The part "Correct": painting on predictions, and learning from what is painted. */
export class CorrectPart {
  private readonly canvas: PaintCanvas
  private readonly busy = find('correct-busy', HTMLDivElement)
  private readonly zone = find('correct-zone', HTMLDivElement)
  private readonly learned = find('correct-learned', HTMLParagraphElement)
  private readonly learnButton = find('correct-learn', HTMLButtonElement)
  private readonly undoButton = find('correct-undo', HTMLButtonElement)
  private readonly stopButton = find('correct-stop', HTMLButtonElement)
  private readonly progress = find('correct-progress', HTMLProgressElement)
  private readonly method = find('correct-method', HTMLSelectElement)
  private readonly scope = find('correct-scope', HTMLSelectElement)
  private architecture: string | undefined
  private entries: Entry[] = []
  private unlabeled: { readonly name: string; readonly picture: Picture }[] = []
  private classes: readonly string[] = []
  private learning: AbortController | undefined

  /** @param side pixels of the longer side at which the network sees pictures */
  constructor(
    private readonly app: App,
    methods: readonly { readonly name: string; readonly text: string }[],
    private readonly side: () => number,
  ) {
    this.method.append(...methods.map(({ name, text }) => make('option', { value: name }, text)))
    this.canvas = new PaintCanvas(app, () => this.count())
    find('correct-add', HTMLInputElement).onchange = ({ target }) =>
      this.take(target as HTMLInputElement, (files) => this.addFiles(files))
    find('correct-unlabeled', HTMLInputElement).onchange = ({ target }) =>
      this.take(target as HTMLInputElement, (files) => this.addUnlabeled(files))
    find('correct-forget', HTMLButtonElement).onclick = () => this.forgetUnlabeled()
    this.learnButton.onclick = () => void app.attempt(() => this.learn())
    this.stopButton.onclick = () => this.learning?.abort()
    this.undoButton.onclick = () => void app.attempt(() => this.undoLearning())
    find('correct-save', HTMLButtonElement).onclick = () => void app.attempt(() => this.save())
    this.scope.onchange = () => this.buttons()
    app.client.on('features', ({ done, all }) => this.wait(`computing features: ${done} of ${all}`))
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
      if (model.architecture !== this.architecture && this.unlabeled.length === 0) {
        this.scope.value = transformers.has(model.architecture) ? 'head' : 'whole'
      }
      this.architecture = model.architecture
      this.buttons()
      const isOther = model.classes.join('\n') !== this.classes.join('\n')
      this.classes = model.classes
      if (isOther) {
        // What was painted with other classes means nothing.
        for (const { painting } of this.entries) painting.forget()
        this.canvas.listClasses()
        this.count()
      }
      void this.predictAll()
    })
    app.machine.follow((machine) => {
      this.buttons()
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
    if (this.unlabeled.length > 0) {
      this.scope.value = 'whole'
      if (this.method.value === 'supervised') this.method.value = 'prevmatch'
    }
    this.buttons()
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
    for (const { button } of this.entries) button.setAttribute('aria-pressed', String(button === entry.button))
    this.canvas.open(entry)
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
    this.canvas.draw()
  }

  private async predictAll(): Promise<void> {
    await this.app.attempt(async () => {
      for (const entry of this.entries) await this.predict(entry)
    })
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
    find('correct-canvas', HTMLCanvasElement).dataset.painted = String(pixels)
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
    this.progress.value = 0
    this.buttons()
    this.wait('preparing')
    try {
      const head = this.scope.value === 'head'
      const ask = {
        corrections,
        unlabeled: head ? [] : this.unlabeled.map(({ picture }) => picture),
        method: head ? 'supervised' : this.method.value,
        head,
        steps: steps.valueAsNumber,
        learningRate: Number(find('correct-rate', HTMLSelectElement).value),
      }
      const model = await app.client.call('learn', ask, { signal: controller.signal })
      this.learned.textContent = `learned ${ask.steps} steps by ${head ? 'the head alone' : ask.method}; "Undo learning" goes back to the weights before`
      app.model.value = model
    } catch (error) {
      this.learned.textContent = controller.signal.aborted ? 'stopped: the weights are those before' : ''
      throw error
    } finally {
      this.learning = undefined
      this.buttons()
      this.wait(undefined)
    }
  }

  private buttons(): void {
    const { model, machine } = this.app
    const isLearning = this.learning !== undefined
    this.canvas.isLocked = isLearning
    this.learnButton.disabled = isLearning || machine.value?.adapter === undefined
    this.method.disabled = this.scope.value === 'head'
    this.undoButton.disabled = isLearning || (model.value?.changes ?? 0) === 0
    this.stopButton.hidden = !isLearning
    this.progress.hidden = !isLearning
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
