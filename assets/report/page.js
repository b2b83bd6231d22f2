// Draws the charts of a report. Runs in the page; `uPlot` is defined by the script before it.
/* global uPlot */
;(() => {
  const { charts, iterationsPerEpoch } = JSON.parse(document.getElementById('data').textContent)
  const dark = matchMedia('(prefers-color-scheme: dark)')
  const height = 240
  const cursors = uPlot.sync('iteration')

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

  /** At most four digits, and none that say nothing. */
  const short = (value) => {
    if (value === 0) return '0'
    const size = Math.abs(value)
    if (size < 1e-3) return value.toExponential(1).replace(/\.0(?=e)/, '')
    return String(Number(value.toPrecision(size >= 1000 ? 6 : 4)))
  }

  const when = (iteration) => {
    if (!iterationsPerEpoch) return String(iteration)
    return `${iteration} (epoch ${Math.ceil(iteration / iterationsPerEpoch)})`
  }

  const thousands = (value) => (value >= 10000 ? `${Number((value / 1000).toPrecision(3))}k` : String(value))

  /** What the legend shows of a series: the value under the cursor, or the last one. */
  const shown = (text) => (plot, _, series, index) => {
    const value = plot.data[series][index ?? plot.data[0].length - 1]
    return value === null || value === undefined ? '–' : text(value)
  }

  function options({ unit, x, series }, width) {
    const axis = {
      stroke: () => color('muted'),
      grid: { stroke: () => color('grid'), width: 1 },
      ticks: { show: false },
      font: '12px system-ui, sans-serif',
    }
    const end = Math.max(...charts.map((chart) => chart.x.at(-1)))
    return {
      width,
      height,
      padding: [8, 18, 0, 0],
      cursor: {
        sync: { key: cursors.key, setSeries: false, scales: ['x', null] },
        points: { size: 7 },
        drag: { x: true, y: false },
        y: false,
      },
      legend: { live: true, markers: { width: 2, dash: (plot, i) => (plot.series[i].dash ? 'dashed' : 'solid') } },
      scales: {
        x: { time: false, range: (_, min, max) => (min === x[0] && max === x.at(-1) ? [0, end] : [min, max]) },
        // Most of these quantities begin at 0; a single value gets room around it.
        y: { range: (_, __, max) => [0, max > 0 ? max * 1.06 : 1] },
      },
      axes: [
        { ...axis, size: 30, space: 70, values: (_, ticks) => ticks.map(thousands) },
        { ...axis, size: 52, space: 36, values: (_, ticks) => ticks.map(short) },
      ],
      series: [
        { label: 'iteration', value: shown(when) },
        ...series.map(({ label, color: name, dashed }) => ({
          label,
          stroke: () => color(name),
          width: name === 'ink' && !dashed ? 2.5 : 1.75,
          dash: dashed ? [6, 4] : undefined,
          spanGaps: false,
          points: { size: 5, fill: () => color(name) },
          value: shown((value) => short(value) + (unit ? ` ${unit}` : '')),
        })),
      ],
    }
  }

  for (const chart of charts) {
    const place = document.getElementById(`chart-${chart.id}`)
    const data = [chart.x, ...chart.series.map(({ values }) => values)]
    let plot
    const draw = () => {
      plot?.destroy()
      plot = new uPlot(options(chart, place.clientWidth), data, place)
    }
    draw()
    dark.addEventListener('change', draw)
    new ResizeObserver(() => {
      if (place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height })
    }).observe(place)
  }
})()
