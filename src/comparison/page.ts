import { relative, sep } from 'node:path'
import type { Config } from '../train/config/load.js'
import type { Rgb } from '../train/data/classes.js'
import { type Chart, figureOf, renderPage, type Series, section, swatch } from '../train/drawing/page.js'
import { escapeMarkup } from '../train/drawing/svg.js'
import { duration } from '../train/logging/log.js'
import type { ComparedRun } from './compared-run.js'
import { type MethodSummary, showBytes, showSpread } from './summary.js'

/** What the page shows. */
export interface Comparison {
  readonly title: string
  /** Of any of the runs. */
  readonly config: Config
  readonly runs: readonly ComparedRun[]
  readonly summaries: readonly MethodSummary[]
  readonly classNames: readonly string[]
  readonly palette: readonly Rgb[]
  /** The text of an SVG file. */
  readonly sheet: string
  /** Folder of the page. */
  readonly out: string
}

const colors: readonly Series['color'][] = ['muted', 'blue', 'amber', 'red', 'green', 'violet', 'teal', 'ink']
const unknownColor: Rgb = [214, 216, 222]

/** The text of an HTML page that compares methods: scores, classes, curves, pictures. */
export function comparisonPage(comparison: Comparison): string {
  const { title, config, runs, summaries, sheet } = comparison
  const charts = curvesOf(runs, summaries)
  const seeds = [...new Set(runs.map(({ seed }) => seed))]
  const about = `${config.dataset} · ${config.epochs} epochs · seed${seeds.length > 1 ? 's' : ''} ${seeds.join(', ')}`
  const picture = `<div class="picture"><img src="data:image/svg+xml;base64,${Buffer.from(sheet).toString('base64')}" alt="Validation images, ground truth, and a column of predictions for each method"></div>`
  const note =
    'Mean IoU in percent of the best evaluation of each run, ± the sample standard deviation over seeds; “last” is the ' +
    'evaluation after the last epoch. Time is that of the training steps alone; memory is what is planned on the device. ' +
    'All methods have the same lists, labels and number of steps.'
  return renderPage({
    title,
    kind: 'comparison of methods',
    charts,
    iterationsPerEpoch: undefined,
    sections: [
      `<header><p class="about">${escapeMarkup(about)}</p><h1>${escapeMarkup(title)}</h1></header>`,
      section('Methods', `${methodTable(comparison)}<p class="note">${note}</p>`),
      section('Validation images', picture),
      section('Mean IoU over the training', `<div class="charts">${charts.map(figureOf).join('')}</div>`),
      section('Classes', classTable(comparison)),
    ],
  })
}

const highest = (values: readonly number[]): number => Math.max(...values)

function methodTable({ summaries, runs, out }: Comparison): string {
  const best = highest(summaries.map((each) => each.best.mean))
  const rows = summaries.map((each) => {
    const own = runs.filter(({ method }) => method === each.method)
    const links = own.map(({ seed, folder }) => {
      const href = `${relative(out, folder).split(sep).map(encodeURIComponent).join('/')}/report.html`
      return `<a href="${href}">seed ${seed}</a>`
    })
    const bar = `<td class="bar"><div><i style="width:${each.best.mean.toFixed(1)}%"></i></div></td>`
    const score = showSpread(each.best)
    return (
      `<tr><th scope="row">${escapeMarkup(each.method)}</th>${bar}` +
      `<td class="number">${each.best.mean === best ? `<b>${score}</b>` : score}</td>` +
      `<td class="number">${showSpread(each.last)}</td><td class="number">${duration(each.seconds.mean)}</td>` +
      `<td class="number">${showBytes(each.memory)}</td><td class="number">${links.join(', ')}</td></tr>`
    )
  })
  const head = ['last', 'time', 'memory', 'reports'].map((name) => `<th scope="col" class="number">${name}</th>`)
  return `<div class="table"><table class="data"><thead><tr><th scope="col">method</th><th scope="col" colspan="2" class="number">best mIoU</th>${head.join('')}</tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>`
}

/** Classes in rows, methods in columns; the best of each class is bold. */
function classTable({ summaries, classNames, palette }: Comparison): string {
  const head = summaries.map(({ method }) => `<th scope="col" class="number">${escapeMarkup(method)}</th>`)
  const rows = classNames.map((name, k) => {
    const best = highest(summaries.map(({ classes }) => classes[k]?.mean ?? 0))
    const cells = summaries.map(({ classes }) => {
      const spread = classes[k] ?? { mean: 0, deviation: undefined }
      const shown = showSpread(spread)
      return `<td class="number">${spread.mean === best ? `<b>${shown}</b>` : shown}</td>`
    })
    const color = swatch(palette[k] ?? unknownColor)
    return `<tr><th scope="row">${color}${escapeMarkup(name)}</th>${cells.join('')}</tr>`
  })
  return `<div class="table"><table class="data"><thead><tr><th scope="col">class</th>${head.join('')}</tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div><p class="note">IoU in percent of the best evaluations.</p>`
}

/** A curve per method: the mean over its runs at each evaluation. */
function curvesOf(runs: readonly ComparedRun[], summaries: readonly MethodSummary[]): Chart[] {
  const x = [...new Set(runs.flatMap(({ history }) => history.map(({ iteration }) => iteration)))].sort((a, b) => a - b)
  const series = summaries.map(({ method }, i): Series => {
    const own = runs.filter((run) => run.method === method)
    const values = x.map((iteration) => {
      const found = own.flatMap(({ history }) => history.filter((at) => at.iteration === iteration))
      return found.length === 0 ? null : found.reduce((sum, { miou }) => sum + miou, 0) / found.length
    })
    return { label: method, color: colors[i % colors.length] ?? 'ink', values }
  })
  return [{ id: 'miou', title: 'Mean IoU', unit: '%', x, series }]
}
