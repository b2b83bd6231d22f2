import { stringify } from 'yaml'
import type { Rgb } from '../data/classes.js'
import { figureOf, renderPage, section, swatch } from '../drawing/page.js'
import { escapeMarkup } from '../drawing/svg.js'
import { writeAtomically } from '../io/files.js'
import type { MetricSpec } from '../methods/method.js'
import { type ClassRow, chartsOf, classRows, type LogEvent, numberOf, trainingSeconds } from './report-data.js'
import {
  drawPictures,
  type Pictures,
  type ReportSample,
  uncountedColor,
  unknownColor,
  wrongColor,
} from './report-images.js'

export type { LogEvent } from './report-data.js'
export type { ReportSample } from './report-images.js'

export interface Report {
  /** Name of the run. */
  readonly title: string
  /** The resolved configuration and whatever else describes the run; shown as YAML. */
  readonly config: Readonly<Record<string, unknown>>
  /** The lines of log.jsonl, see `readLog`. */
  readonly events: readonly LogEvent[]
  /** Of the run's method. */
  readonly metrics: readonly MetricSpec[]
  /** Validation images as the last evaluation predicts them. */
  readonly samples: readonly ReportSample[]
  readonly classNames: readonly string[]
  readonly palette: readonly Rgb[]
  /** Value of the ground truth where nothing counts; 255 by default. */
  readonly ignoreIndex?: number
  /** Shown as the time of the report; now by default. */
  readonly date?: Date
}

/**
 * Writes a run's report: one HTML page that needs no other file and no network. The page is complete or untouched.
 * @throws UserError if it cannot be written
 */
export async function writeReport(path: string, report: Report): Promise<void> {
  writeAtomically(path, [Buffer.from(await renderReport(report))])
}

/** The text of a run's report. */
export async function renderReport(report: Report): Promise<string> {
  const { title, config, events, samples, classNames, palette, ignoreIndex = 255, date = new Date() } = report
  const charts = chartsOf(events, report.metrics)
  const evaluation = events.findLast(({ event }) => event === 'evaluation')
  const iterationsPerEpoch = evaluation && perEpoch(evaluation)
  const pictures: [ReportSample, Pictures][] = []
  for (const sample of samples) pictures.push([sample, await drawPictures(sample, palette, ignoreIndex)])
  const sections = [
    header(report, date),
    cards(report),
    section('Curves', charts.length === 0 ? '' : `<div class="charts">${charts.map(figureOf).join('')}</div>`),
    section('Classes', classTable(classRows(events, classNames), evaluation, palette)),
    section('Validation images', gallery(pictures, classNames, palette)),
    section('Configuration', `<details><summary>Show</summary><pre>${escapeMarkup(stringify(config))}</pre></details>`),
  ]
  return renderPage({ title, kind: 'training report', sections, charts, iterationsPerEpoch })
}

/** Evaluations follow whole epochs, counted from 0. */
function perEpoch(evaluation: LogEvent): number | undefined {
  const iteration = numberOf(evaluation, 'iteration')
  const epoch = numberOf(evaluation, 'epoch')
  return iteration === undefined || epoch === undefined ? undefined : iteration / (epoch + 1)
}

function header({ title, config, events }: Report, date: Date): string {
  const { method, dataset } = config
  const about = [method, dataset].filter((value) => typeof value === 'string').join(' on ')
  const adapter = events.find(({ event }) => event === 'start')?.adapter
  const device = typeof adapter === 'object' && adapter && 'device' in adapter ? ` · ${adapter.device}` : ''
  const shown = date.toISOString()
  return `<header>
<p class="about">${escapeMarkup(about + device)}</p>
<h1>${escapeMarkup(title)}</h1>
<p class="about">as of <time datetime="${shown}">${shown.slice(0, 16).replace('T', ' ')} UTC</time></p>
</header>`
}

function cards({ events, config }: Report): string {
  const evaluations = events.filter(({ event }) => event === 'evaluation')
  const scores = evaluations.map((evaluation) => numberOf(evaluation, 'miou') ?? Number.NEGATIVE_INFINITY)
  const last = evaluations.at(-1)
  const train = events.findLast(({ event }) => event === 'train')
  const found: string[] = []
  const card = (name: string, value: string, note: string) => {
    found.push(`<div class="card"><dt>${name}</dt><dd><b>${value}</b><span>${escapeMarkup(note)}</span></dd></div>`)
  }
  if (last) {
    const best = Math.max(...scores)
    card('Best mIoU', percent(best), `epoch ${(numberOf(evaluations[scores.indexOf(best)] ?? last, 'epoch') ?? 0) + 1}`)
    const before = scores.at(-2)
    const now = scores.at(-1) ?? best
    card('Last mIoU', percent(now), before === undefined ? 'first evaluation' : `${signed(now - before)} points`)
  }
  if (train) {
    const epoch = (numberOf(train, 'epoch') ?? 0) + 1
    const epochs = typeof config.epochs === 'number' ? ` / ${config.epochs}` : ''
    card('Epoch', `${epoch}<small>${epochs}</small>`, `iteration ${numberOf(train, 'iteration') ?? '?'}`)
    const skipped = numberOf(train, 'skipped_steps')
    if (skipped !== undefined)
      card('Half precision', `${skipped}<small> skipped</small>`, `loss scale ${numberOf(train, 'loss_scale') ?? '?'}`)
    const step = numberOf(train, 'seconds')
    card('Training', clock(trainingSeconds(events)), step === undefined ? '' : `${milliseconds(step)} per step`)
  }
  return found.length > 0
    ? `<dl class="cards">${found.join('')}</dl>`
    : '<p class="empty">Nothing has been logged yet.</p>'
}

const percent = (value: number): string => `${value.toFixed(2)}<small> %</small>`
const signed = (value: number, digits = 2): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`
const milliseconds = (seconds: number): string => `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`

function clock(seconds: number): string {
  const minutes = Math.floor(seconds / 60)
  const unit = (value: number, name: string) => `${value}<small> ${name} </small>`
  if (minutes >= 60) return unit(Math.floor(minutes / 60), 'h') + unit(minutes % 60, 'min')
  return unit(minutes, 'min') + unit(Math.floor(seconds % 60), 's')
}

function classTable(rows: readonly ClassRow[], evaluation: LogEvent | undefined, palette: readonly Rgb[]): string {
  if (rows.length === 0) return ''
  const shown = (value: number | undefined) => (value === undefined ? '–' : value.toFixed(1))
  const has = (key: 'change' | 'accuracy' | 'share') => rows.some((row) => row[key] !== undefined)
  const [changes, accuracies, shares] = [has('change'), has('accuracy'), has('share')]
  const trends = changes && rows.some(({ history }) => history.length > 2)
  const change = (value: number | undefined) => {
    const tenths = Math.round(10 * (value ?? 0))
    const look = tenths === 0 ? 'same' : tenths < 0 ? 'worse' : 'better'
    return `<td class="number ${look}">${tenths === 0 ? '·' : signed(tenths / 10, 1)}</td>`
  }
  const body = rows.map(
    ({ name, iou, change: by, accuracy, share, history }, k) =>
      `<tr><th scope="row">${swatch(palette[k] ?? unknownColor)}${escapeMarkup(name)}</th>` +
      `<td class="bar"><div><i style="width:${(iou ?? 0).toFixed(1)}%"></i></div></td><td class="number">${shown(iou)}</td>` +
      (changes ? change(by) : '') +
      (accuracies ? `<td class="number">${shown(accuracy)}</td>` : '') +
      (shares ? `<td class="number">${shown(share)}</td>` : '') +
      (trends ? `<td class="trend">${sparkline(history)}</td>` : '') +
      '</tr>',
  )
  const mean = evaluation && numberOf(evaluation, 'miou')
  const present = evaluation && numberOf(evaluation, 'miouPresent')
  const pixels = evaluation && numberOf(evaluation, 'pixelAccuracy')
  const notes = [
    mean === undefined ? '' : `mean over all classes ${mean.toFixed(2)} %`,
    present === undefined ? '' : `over the present ones ${present.toFixed(2)} %`,
    pixels === undefined ? '' : `pixel accuracy ${pixels.toFixed(2)} %`,
  ].filter((note) => note !== '')
  const head = (text: string, given: boolean) => (given ? `<th scope="col" class="number">${text}</th>` : '')
  return `<div class="table"><table id="classes" class="data">
<thead><tr><th scope="col">class</th><th scope="col" colspan="2" class="number">IoU</th>${head('change', changes)}${head('accuracy', accuracies)}${head('pixels', shares)}${trends ? '<th scope="col" class="trend">over the epochs</th>' : ''}</tr></thead>
<tbody>${body.join('\n')}</tbody>
</table></div><p class="note">In percent, after epoch ${((evaluation && numberOf(evaluation, 'epoch')) ?? 0) + 1}; ${notes.join(', ')}.</p>`
}

/** A line from 0 to 100 %. */
function sparkline(values: readonly (number | undefined)[]): string {
  const step = 96 / Math.max(1, values.length - 1)
  const points = values.flatMap((value, i) =>
    value === undefined ? [] : [`${(2 + i * step).toFixed(1)},${(22 - value / 5).toFixed(1)}`],
  )
  return `<svg viewBox="0 0 100 24" aria-hidden="true"><path d="M2 22H98"/><polyline points="${points.join(' ')}"/></svg>`
}

function gallery(
  pictures: readonly (readonly [ReportSample, Pictures])[],
  classNames: readonly string[],
  palette: readonly Rgb[],
): string {
  if (pictures.length === 0) return ''
  const rows = pictures.map(([{ name }, { image, groundTruth, prediction, errors, pixelAccuracy, width, height }]) => {
    const picture = (kind: string, uri: string) =>
      `<figure><img src="${uri}" width="${width}" height="${height}" alt="${kind} of ${escapeMarkup(name)}"><figcaption>${kind}</figcaption></figure>`
    const score = pixelAccuracy === undefined ? '' : ` <small>${pixelAccuracy.toFixed(1)} % of the pixels right</small>`
    return `<article class="sample"><h3>${escapeMarkup(name)}${score}</h3><div class="pictures">${picture('image', image)}${picture('ground truth', groundTruth)}${picture('prediction', prediction)}${picture('errors', errors)}</div></article>`
  })
  const used = new Set<number>()
  for (const [{ groundTruth, prediction }] of pictures) {
    for (const value of groundTruth) used.add(value)
    for (const value of prediction) used.add(value)
  }
  const legend = palette
    .map((color, k) => [k, `<li>${swatch(color)}${escapeMarkup(classNames[k] ?? `class ${k}`)}</li>`] as const)
    .filter(([k]) => used.has(k))
    .map(([, item]) => item)
  const errors = `<li>${swatch(wrongColor)}wrong</li><li>${swatch(uncountedColor)}does not count</li>`
  return `<ul class="legend">${legend.join('')}</ul>${rows.join('\n')}<ul class="legend"><li>Errors:</li>${errors}</ul>`
}
