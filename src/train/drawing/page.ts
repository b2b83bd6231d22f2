import { readFileSync } from 'node:fs'
import { type Rgb, showColor } from '../data/classes.js'
import { escapeMarkup } from './svg.js'

/** A curve of a chart. */
export interface Series {
  readonly label: string
  /** A colour of the page's style sheet. */
  readonly color: 'ink' | 'muted' | 'blue' | 'amber' | 'red' | 'green' | 'violet' | 'teal'
  readonly dashed?: true
  /** One per x; null where there is none. */
  readonly values: readonly (number | null)[]
}

/** Curves over the iterations. */
export interface Chart {
  readonly id: string
  readonly title: string
  readonly unit: '' | '%' | 'ms'
  readonly x: readonly number[]
  readonly series: readonly Series[]
}

/** A page of charts and other content. */
export interface Page {
  readonly title: string
  /** What kind of page it is, behind the title of the window. */
  readonly kind: string
  /** Markup. */
  readonly sections: readonly string[]
  /** Their places in the sections are those of `figureOf`. */
  readonly charts: readonly Chart[]
  readonly iterationsPerEpoch: number | undefined
}

const asset = (url: string | URL) => readFileSync(new URL(url), 'utf8')

/** The text of an HTML page that needs no other file and no network. */
export function renderPage({ title, kind, sections, charts, iterationsPerEpoch }: Page): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${escapeMarkup(title)} · ${kind}</title>
<style>${asset(import.meta.resolve('uplot/dist/uPlot.min.css'))}</style>
<style>${asset(new URL('../../../assets/report/page.css', import.meta.url))}</style>
</head>
<body>
<main>
${sections.join('\n')}
</main>
<script type="application/json" id="data">${json({ charts, iterationsPerEpoch })}</script>
<script>${asset(import.meta.resolve('uplot/dist/uPlot.iife.min.js'))}</script>
<script>${asset(new URL('../../../assets/report/page.js', import.meta.url))}</script>
</body>
</html>
`
}

/** JSON that cannot end the script element which holds it. */
const json = (value: unknown): string => JSON.stringify(value).replaceAll('<', '\\u003c')

/** A part of a page under a heading; nothing where it has no content. */
export const section = (title: string, content: string): string =>
  content === '' ? '' : `<section><h2>${title}</h2>${content}</section>`

/** The place of a chart. */
export const figureOf = ({ id, title, unit }: Pick<Chart, 'id' | 'title' | 'unit'>): string =>
  `<figure class="chart"><figcaption>${title}${unit ? ` <small>${unit}</small>` : ''}</figcaption>` +
  `<div id="chart-${id}" role="img" aria-label="Curves: ${title}"></div></figure>`

/** A square in the colour of a class. */
export const swatch = (color: Rgb): string => `<i class="swatch" style="background:${showColor(color)}"></i>`
