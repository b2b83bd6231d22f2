import type { App } from '../app.js'
import { arrowMove, drawing, find, make, mark, roving, shownBox, swatch } from '../dom.js'
import { colored, type Source, sized } from '../pictures.js'
import { type Painting, unpainted } from './painting.js'

type Tool = 'brush' | 'fill' | 'eraser'

/** A picture, and what is painted over it. */
export interface Subject {
  readonly source: Source
  readonly painting: Painting
}

/** The longest side that is drawn, in pixels. */
const shownSide = 768
const predictionOpacity = 0.38
const paintOpacity = 0.82

/** The canvas of "Correct" with its tools: paints on one picture by pointer or keyboard. */
export class PaintCanvas {
  private readonly canvas = find('correct-canvas', HTMLCanvasElement)
  private readonly line = find('correct-line', HTMLParagraphElement)
  private readonly tools = find('correct-tools', HTMLDivElement)
  private readonly classes = find('correct-classes', HTMLDivElement)
  private readonly size = find('correct-size', HTMLInputElement)
  private subject: Subject | undefined
  private tool: Tool = 'brush'
  private label = 0
  /** Where the pointer was last, in pixels of the painting; undefined between strokes. */
  private stroke: readonly [number, number] | undefined
  private cursor: readonly [number, number] | undefined
  /** Whether strokes are refused. */
  isLocked = false

  /** @param painted is called after a stroke, and after one was taken back */
  constructor(
    private readonly app: App,
    private readonly painted: () => void,
  ) {
    const { canvas } = this
    roving(this.tools, ({ dataset }) => this.useTool(dataset.tool as Tool))
    roving(this.classes, ({ dataset }) => this.useClass(Number(dataset.class)))
    canvas.addEventListener('contextrestored', () => this.draw())
    canvas.onpointerdown = (event) => this.press(event)
    canvas.onpointermove = (event) => this.move(event)
    canvas.onpointerup = () => this.release()
    canvas.onpointercancel = () => this.release()
    canvas.onpointerleave = () => {
      if (!this.stroke) this.cursor = undefined
      this.draw()
    }
    canvas.onkeydown = (event) => this.key(event)
    this.size.oninput = () => this.draw()
    find('correct-undo-stroke', HTMLButtonElement).onclick = () => this.undoStroke()
    find('correct-clear', HTMLButtonElement).onclick = () => {
      this.subject?.painting.clear()
      this.changed()
    }
  }

  /** Shows a picture, to be painted on. */
  open(subject: Subject): void {
    this.subject = subject
    this.cursor = undefined
    this.draw()
  }

  /** Offers the classes of the network. */
  listClasses(): void {
    const { classes, palette } = this.app.model.value ?? { classes: [], palette: [] }
    this.classes.replaceChildren(
      ...classes.map((name, k) => {
        const key = k < 9 ? [make('kbd', {}, String(k + 1))] : []
        const button = make('button', { type: 'button' }, swatch(palette[k]), make('span', {}, name), ...key)
        button.setAttribute('role', 'radio')
        button.dataset.class = String(k)
        return button
      }),
    )
    this.useClass(0)
  }

  draw(): void {
    const { subject, canvas, app, cursor } = this
    const palette = app.model.value?.palette
    if (!subject || !palette) return
    const { painting, source } = subject
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
    this.line.textContent = this.described(painting)
  }

  /** The tool, and the class under the pointer. */
  private described(painting: Painting): string {
    const { cursor, tool } = this
    const nameOf = (label: number) => this.app.model.value?.classes[label] ?? String(label)
    const what = tool === 'eraser' ? 'eraser' : `${tool}: ${nameOf(this.label)}`
    if (!cursor || !this.isInside(cursor)) return what
    const at = painting.shownAt(Math.floor(cursor[1]) * painting.size.width + Math.floor(cursor[0]))
    return at === unpainted ? what : `${what}; under the pointer: ${nameOf(at)}`
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

  private useTool(tool: Tool): void {
    this.tool = tool
    mark(this.tools, ({ dataset }) => dataset.tool === tool, 'aria-checked')
    this.draw()
  }

  private useClass(label: number): void {
    if (label >= (this.app.model.value?.classes.length ?? 0)) return
    this.label = label
    if (this.tool === 'eraser') this.useTool('brush')
    mark(this.classes, ({ dataset }) => dataset.class === String(label), 'aria-checked')
    this.draw()
  }

  private get radius(): number {
    return Number(this.size.value) / 2
  }

  private resize(by: number): void {
    this.size.value = String(Number(this.size.value) + by)
    this.draw()
  }

  private place({ clientX, clientY }: PointerEvent): readonly [number, number] | undefined {
    const size = this.subject?.painting.size
    if (!size) return undefined
    const box = shownBox(this.canvas)
    return [((clientX - box.x) / box.width) * size.width, ((clientY - box.y) / box.height) * size.height]
  }

  private isInside([x, y]: readonly [number, number]): boolean {
    const size = this.subject?.painting.size
    return size !== undefined && x >= 0 && y >= 0 && x < size.width && y < size.height
  }

  private press(event: PointerEvent): void {
    const place = this.place(event)
    if (!place || !this.isInside(place) || event.button !== 0 || this.isLocked) return
    this.canvas.setPointerCapture(event.pointerId)
    this.cursor = place
    this.apply(place)
    this.stroke = place
  }

  private move(event: PointerEvent): void {
    const place = this.place(event)
    if (!place) return
    this.cursor = place
    const { stroke, subject, tool } = this
    if (stroke && subject && tool !== 'fill') {
      subject.painting.line(stroke, place, this.radius, tool === 'eraser' ? unpainted : this.label)
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
    const { subject, tool } = this
    if (!subject || this.isLocked) return
    const { painting } = subject
    painting.begin()
    if (tool === 'fill') painting.fill(place[0], place[1], this.label)
    else painting.spot(place[0], place[1], this.radius, tool === 'eraser' ? unpainted : this.label)
    this.draw()
  }

  private key(event: KeyboardEvent): void {
    const { subject } = this
    if (!subject) return
    const { width, height } = subject.painting.size
    const move = arrowMove(event, event.shiftKey ? 8 : 1)
    if (move) {
      const [x, y] = this.cursor ?? [width / 2, height / 2]
      const within = (value: number, extent: number) => Math.min(extent - 0.5, Math.max(0.5, value))
      this.cursor = [within(x + move[0], width), within(y + move[1], height)]
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

  private undoStroke(): void {
    if (this.subject?.painting.undo()) this.changed()
  }

  private changed(): void {
    this.draw()
    this.painted()
  }
}
