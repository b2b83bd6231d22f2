import UPlot from 'uplot'
import { followTheme } from './dom.js'

/** One curve for each of two trainings, over their steps. */
export class PairChart {
  private plot: UPlot
  private readonly points = new Map<number, [number | null, number | null]>()
  private readonly observer: ResizeObserver
  private readonly unfollow: () => void
  /** The timer of a drawing that is due. */
  private drawing: ReturnType<typeof setTimeout> | undefined

  /** @param range of the values; null leaves an end to the data */
  constructor(
    private readonly place: HTMLElement,
    private readonly names: readonly [string, string],
    private readonly range: readonly [number | null, number | null],
  ) {
    this.plot = this.build()
    this.observer = new ResizeObserver(() => {
      if (place.clientWidth > 0) this.plot.setSize({ width: place.clientWidth, height: 220 })
    })
    this.observer.observe(place)
    this.unfollow = followTheme(() => {
      this.plot.destroy()
      this.plot = this.build()
      this.draw()
    })
  }

  add(curve: 0 | 1, step: number, value: number): void {
    const point = this.points.get(step) ?? [null, null]
    point[curve] = value
    this.points.set(step, point)
    // Several messages in a row are one drawing; a hidden page draws when it is seen again.
    this.drawing ??= setTimeout(() => this.draw(), 60)
  }

  destroy(): void {
    this.observer.disconnect()
    this.unfollow()
    clearTimeout(this.drawing)
    this.plot.destroy()
    this.place.replaceChildren()
  }

  /** A plot without data, in the colours of now. */
  private build(): UPlot {
    const style = getComputedStyle(document.documentElement)
    const color = (name: string) => resolved(style.getPropertyValue(name))
    const [muted, line] = [color('--muted'), color('--line')]
    const axis = {
      stroke: muted,
      grid: { stroke: line, width: 1 },
      ticks: { show: false },
      font: '12px system-ui, sans-serif',
    }
    const series = (label: string, variable: string) => ({
      label,
      stroke: color(variable),
      width: 2,
      spanGaps: true,
      points: { show: false },
      value: (_: UPlot, value: number | null) => (value === null ? '–' : value.toFixed(2)),
    })
    return new UPlot(
      {
        width: Math.max(200, this.place.clientWidth),
        height: 220,
        cursor: { y: false },
        scales: { x: { time: false }, y: { range: (_, low, high) => [this.range[0] ?? low, this.range[1] ?? high] } },
        axes: [
          { ...axis, size: 30 },
          { ...axis, size: 44 },
        ],
        series: [{ label: 'step' }, series(this.names[0], '--supervised'), series(this.names[1], '--method')],
      },
      [[], [], []],
      this.place,
    )
  }

  private draw(): void {
    this.drawing = undefined
    const all = [...this.points].sort(([a], [b]) => a - b)
    this.plot.setData([all.map(([step]) => step), all.map(([, [first]]) => first), all.map(([, [, second]]) => second)])
  }
}

/** A colour of the style sheet as canvases take it. */
function resolved(value: string): string {
  const probe = document.createElement('i')
  probe.style.color = value
  document.body.append(probe)
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}
