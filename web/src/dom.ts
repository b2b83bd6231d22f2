/** The element of the page with an id. Throws where the page has none of that type. */
export function find<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id)
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} '${id}'`)
  return found
}

/** A new element with properties and children. */
export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Partial<HTMLElementTagNameMap[Tag]> = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

const drawers = new WeakMap<HTMLCanvasElement, () => void>()

/** Draws a canvas now, and again where the browser loses what was drawn, as it does with its GPU process. */
export function keepDrawn(canvas: HTMLCanvasElement, draw: () => void): void {
  if (!drawers.has(canvas)) canvas.addEventListener('contextrestored', () => drawers.get(canvas)?.())
  drawers.set(canvas, draw)
  draw()
}

/** What a canvas is drawn with. Throws where the browser gives none. */
export function drawing(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext('2d', { willReadFrequently: true })
  if (!context) throw new Error('the browser draws on no canvas')
  return context
}

/** Calls `change` when the colours of the page change. Returns what ends that. */
export function followTheme(change: () => void): () => void {
  const system = matchMedia('(prefers-color-scheme: dark)')
  const chosen = new MutationObserver(change)
  system.addEventListener('change', change)
  chosen.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] })
  return () => {
    system.removeEventListener('change', change)
    chosen.disconnect()
  }
}

type Rgb = readonly [number, number, number]

/** A square in the colour of a class. */
export function swatch(color: Rgb | undefined): HTMLElement {
  const square = make('i', { className: 'swatch' })
  square.style.background = `rgb(${(color ?? [128, 128, 128]).join(' ')})`
  return square
}

/** Lets arrow keys, Home and End move among the buttons of a group, of which one is in the order of Tab. */
export function roving(group: HTMLElement, choose: (button: HTMLButtonElement) => void): void {
  const buttons = () => [...group.querySelectorAll('button')]
  group.addEventListener('keydown', (event) => {
    const all = buttons()
    const at = all.indexOf(event.target as HTMLButtonElement)
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key]
    const next =
      event.key === 'Home' ? 0 : event.key === 'End' ? all.length - 1 : step === undefined ? undefined : at + step
    const button = next === undefined ? undefined : all[(next + all.length) % all.length]
    if (at < 0 || !button) return
    event.preventDefault()
    button.focus()
    choose(button)
  })
  group.addEventListener('click', (event) => {
    const button = event.target instanceof Element ? event.target.closest('button') : null
    if (button) choose(button)
  })
}

/** Marks one button of a group as chosen: `aria-checked` or `aria-selected`. */
export function mark(group: HTMLElement, chosen: (button: HTMLButtonElement) => boolean, attribute: string): void {
  for (const button of group.querySelectorAll('button')) {
    const isChosen = chosen(button)
    button.setAttribute(attribute, String(isChosen))
    button.tabIndex = isChosen ? 0 : -1
  }
}

/** The part of a canvas that shows its picture, in pixels of the window: the picture keeps its sides. */
export function shownBox(canvas: HTMLCanvasElement): DOMRect {
  const box = canvas.getBoundingClientRect()
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height)
  const [width, height] = [canvas.width * scale, canvas.height * scale]
  return new DOMRect(box.x + (box.width - width) / 2, box.y + (box.height - height) / 2, width, height)
}

/** How far an arrow key moves to the right and down; undefined for other keys. */
export function arrowMove({ key }: KeyboardEvent, step: number): readonly [number, number] | undefined {
  if (key === 'ArrowLeft') return [-step, 0]
  if (key === 'ArrowRight') return [step, 0]
  if (key === 'ArrowUp') return [0, -step]
  if (key === 'ArrowDown') return [0, step]
  return undefined
}
