import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { Page } from 'playwright-core'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type LogEvent, type Report, renderReport, writeReport } from '#dist/train/logging/report.js'
import { chartsOf, classRows, readLog, trainingSeconds } from '#dist/train/logging/report-data.js'
import { prevmatchMetrics } from '#dist/train/methods/prevmatch.js'
import { labeledMetric } from '#dist/train/methods/supervised.js'
import { browserPath, openBrowser } from '../../support/browser.js'
import { skipUnless } from '../../support/skip.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-report-'))
test.after(() => rmSync(folder, { recursive: true }))

/** A PrevMatch run of three epochs with four lines each. */
const events: LogEvent[] = [
  { event: 'start', config: {}, adapter: { device: 'an adapter' } },
  ...[0, 1, 2].flatMap((epoch): LogEvent[] => [
    ...[1, 2, 3, 4].map((k) => ({
      ...{ event: 'train', epoch, iteration: epoch * 40 + k * 10, lr: 0.01 - 0.002 * epoch, lambda: 0 },
      ...{ total_loss: 2 - 0.1 * k - 0.3 * epoch, loss_x: 1 - 0.2 * epoch, loss_s1: 0.5, loss_s2: 0.6, loss_fp: 0.3 },
      ...{ mask_ratio: 0.5 + 0.1 * epoch, data: 0.01, seconds: 0.25 },
      ...(epoch > 0 ? { loss_s1_prev: 0.4, loss_s2_prev: 0.45, loss_fp_prev: 0.2, mask_ratio_prev: 0.7 } : {}),
    })),
    {
      ...{ event: 'evaluation', epoch, iteration: epoch * 40 + 40, seconds: 10 * epoch, best: 40 + 4 * epoch },
      ...{ miou: 40 + 4 * epoch, iou: [80, 40 + 12 * epoch, 0] },
    },
  ]),
]

const [width, height] = [40, 20]
const pixels = (value: (x: number, y: number) => number) =>
  Uint8Array.from({ length: width * height }, (_, i) => value(i % width, Math.floor(i / width)))
const report: Report = {
  title: 'first </title><script>document.title = "broken"</script>',
  config: { method: 'prevmatch', dataset: 'scenes', epochs: 5, note: '</pre><script>broken = 1</script>' },
  events,
  metrics: prevmatchMetrics,
  samples: [
    {
      ...{ name: 'a/"quoted".png', width, height, image: new Uint8Array(width * height * 3).fill(128) },
      // Left half of class 0, right half of class 1, last row ignored; the prediction's border is at 30 instead of 20.
      groundTruth: pixels((x, y) => (y === height - 1 ? 255 : x < 20 ? 0 : 1)),
      prediction: pixels((x) => (x < 30 ? 0 : 1)),
    },
  ],
  classNames: ['sky', '</script>ground', 'boat'],
  palette: [
    [10, 120, 240],
    [200, 90, 30],
    [0, 0, 0],
  ],
  date: new Date(0),
}

test('curves of what a run has, and no others', () => {
  const charts = chartsOf(events, prevmatchMetrics)
  assert.equal(
    charts.map(({ id, series }) => [id, series.length]),
    [
      ['loss', 8],
      ['miou', 2],
      ['mask', 2],
      ['lr', 1],
      ['time', 2],
    ],
  )
  const [loss, miou] = charts
  assert.is(loss?.x.length, 12)
  assert.equal(loss?.series.at(-1)?.values.slice(3, 5), [null, 0.2], 'previous models come later')
  assert.equal(miou?.x, [40, 80, 120])
  assert.equal(miou?.series.find(({ label }) => label === 'mIoU')?.values, [40, 44, 48])
  const supervised = { event: 'train', iteration: 1, total_loss: 1, loss_x: 1, lr: Number.NaN }
  assert.equal(
    chartsOf([supervised, { event: 'train' }], [labeledMetric]).map(({ id, series }) => [
      id,
      series.map(({ label }) => label),
    ]),
    [['loss', ['total']]],
  )
  assert.equal(chartsOf([], prevmatchMetrics), [])
})

test('half precision has a curve of its loss scale, and a card with the steps that were skipped', async () => {
  const half = [65536, 32768].map((loss_scale, i) => {
    return { event: 'train', iteration: i + 1, epoch: 0, total_loss: 1, loss_scale, skipped_steps: i }
  })
  const scale = chartsOf(half, prevmatchMetrics).find(({ id }) => id === 'scale')
  assert.equal(scale?.series[0]?.values, [65536, 32768])
  const page = await renderReport({ ...report, events: half })
  assert.match(page, /<dt>Half precision<\/dt><dd><b>1<small> skipped<\/small><\/b><span>loss scale 32768</)
  assert.not.match(await renderReport(report), /Half precision/)
})

test('long curves are averaged', () => {
  const long = Array.from({ length: 2500 }, (_, i) => ({ event: 'train', iteration: i + 1, total_loss: i % 3 }))
  const [loss] = chartsOf(long, prevmatchMetrics)
  assert.is(loss?.x.length, 834)
  assert.equal([loss?.x[0], loss?.x.at(-1)], [3, 2500])
  assert.is(loss?.series[0]?.values[0], 1)
})

test('classes of the last evaluation with their changes', () => {
  const rows = classRows(events, ['sky', 'ground'])
  assert.equal(
    rows.map(({ name, iou, change }) => [name, iou, change]),
    [
      ['sky', 80, 0],
      ['ground', 64, 12],
      ['class 2', 0, 0],
    ],
  )
  assert.equal(rows[1]?.history, [40, 52, 64])
  assert.is(rows[0]?.accuracy, undefined)
  const rich = [{ event: 'evaluation', iou: [1, null], accuracy: [2, 3], share: [4, 96] }]
  assert.equal(
    classRows(rich, []).map(({ iou, change, accuracy, share }) => [iou, change, accuracy, share]),
    [
      [1, undefined, 2, 4],
      [undefined, undefined, 3, 96],
    ],
  )
  assert.equal(classRows([], []), [])
})

test('the time of training is that of its steps', () => {
  assert.is(trainingSeconds(events), 120 * 0.25)
})

test('a log is read up to a line that is not complete', () => {
  const path = join(folder, 'log.jsonl')
  const lines = events.map((event) => `${JSON.stringify(event)}\n`).join('')
  writeFileSync(path, `${lines}{"event":"tra`)
  assert.equal(readLog(path), events)
  for (const wrong of ['{"event":', '[]', '3', '', '{"event":1}']) {
    writeFileSync(path, `${lines}${wrong}\n${lines}`)
    assert.throws(() => readLog(path), /log\.jsonl: line 17 is not an event/, wrong)
  }
  assert.throws(() => readLog(join(folder, 'none.jsonl')), /cannot read .*none\.jsonl/)
})

test('a report replaces the one before, or leaves it', async () => {
  const path = join(folder, 'replaced.html')
  await writeReport(path, report)
  const first = readFileSync(path, 'utf8')
  assert.is(first, await renderReport(report), 'the same run gives the same page')
  const [sample] = report.samples
  assert.ok(sample)
  const short = { ...report, samples: [{ ...sample, prediction: new Uint8Array(3) }] }
  try {
    await writeReport(path, short)
    assert.unreachable()
  } catch (error) {
    assert.match(String(error), /prediction of a\/"quoted"\.png is not 40x20/)
  }
  assert.is(readFileSync(path, 'utf8'), first)
  mkdirSync(join(folder, 'taken.html'))
  try {
    await writeReport(join(folder, 'taken.html'), report)
    assert.unreachable()
  } catch (error) {
    assert.match(String(error), /^WriteError: cannot write .*taken\.html/)
  }
  assert.not.ok(readdirSync(folder).some((name) => name.endsWith('.tmp')))
})

test('a report names no other file', async () => {
  const html = await renderReport(report)
  const links = [...html.matchAll(/\s(?:src|href)="([^"]{0,20})/g)].map(([, link]) => link ?? '')
  assert.ok(links.length >= 5)
  assert.equal(
    links.filter((link) => !link.startsWith('data:')),
    [],
  )
})

const browserTest = skipUnless(browserPath !== undefined, 'there is no Chromium (Debian: apt install chromium)')

/** Runs in the page: canvas pixels that are drawn, by chart. */
const drawnPixels = `[...document.querySelectorAll('.chart canvas')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  let count = 0
  for (let i = 3; i < data.length; i += 4) if (data[i] > 0) count++
  return count
})`

/** Runs in the page: the colour of a picture of the first sample at a point. */
const pixelAt = (picture: number, x: number, y: number) => `(async () => {
  const image = document.querySelectorAll('.sample img')[${picture}]
  await image.decode()
  const canvas = document.createElement('canvas')
  canvas.width = image.naturalWidth
  canvas.height = image.naturalHeight
  const context = canvas.getContext('2d')
  context.drawImage(image, 0, 0)
  return [...context.getImageData(${x}, ${y}, 1, 1).data.slice(0, 3)]
})()`

const evaluate = <T>(page: Page, script: string): Promise<T> => page.evaluate(script)

/** Waits until the charts are as wide as their places. */
async function settled(page: Page): Promise<void> {
  const script = `[...document.querySelectorAll('.chart > div')].every((at) => at.firstElementChild.clientWidth === at.clientWidth)`
  for (let tries = 0; !(await evaluate<boolean>(page, script)); tries++) {
    if (tries === 100) throw new Error('the charts do not follow the width of the page')
    await setTimeout(20)
  }
}

browserTest('the page shows itself in a browser, light and dark, wide and narrow, and asks for nothing', async () => {
  const path = join(folder, 'report.html')
  await writeReport(path, report)
  assert.ok(existsSync(path))
  const browser = await openBrowser()
  try {
    const page = await browser.newPage({ viewport: { width: 1300, height: 900 }, colorScheme: 'light' })
    const problems: string[] = []
    const requests: string[] = []
    page.on('console', (message) => {
      if (message.type() === 'error') problems.push(message.text())
    })
    page.on('pageerror', (error) => problems.push(String(error)))
    page.on('request', (request) => requests.push(request.url()))
    const address = pathToFileURL(path).href
    await page.goto(address)

    assert.match(await page.title(), /^first <\/title><script>/)
    assert.is(await evaluate(page, 'typeof broken'), 'undefined')
    assert.match((await page.textContent('.cards')) ?? '', /Best mIoU48\.00 %epoch 3Last mIoU48\.00 %\+4\.00 points/)
    assert.equal(await page.locator('#classes tbody th').allTextContents(), [...report.classNames])
    const change = await page.locator('#classes tbody tr:nth-child(2) td').allTextContents()
    assert.equal(change.slice(1, 3), ['64.0', '+12.0'])
    assert.match((await page.textContent('#chart-miou .u-legend')) ?? '', /120 \(epoch 3\).*mIoU48 %/)
    assert.match((await page.textContent('.sample h3')) ?? '', /75\.0 % of the pixels right/)
    assert.match((await page.textContent('pre')) ?? '', /method: prevmatch/)

    assert.equal(await evaluate(page, pixelAt(1, 25, 5)), [200, 90, 30], 'ground truth')
    assert.equal(await evaluate(page, pixelAt(2, 25, 5)), [10, 120, 240], 'prediction')
    assert.equal(await evaluate(page, pixelAt(3, 25, 5)), [232, 62, 62], 'wrong')
    const [red, green] = await evaluate<number[]>(page, pixelAt(3, 35, 5))
    assert.is(red, green, 'right pixels are grey')
    assert.equal(await evaluate(page, pixelAt(3, 25, 19)), [140, 158, 208], 'pixels that do not count')

    const backgrounds = new Set<string>()
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const width of [1300, 700, 360]) {
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize({ width, height: 900 })
        await settled(page)
        const at = `${colorScheme}, ${width} pixels wide`
        assert.ok((await evaluate<number>(page, 'document.documentElement.scrollWidth')) <= width, `${at}: overflows`)
        const drawn = await evaluate<number[]>(page, drawnPixels)
        assert.is(drawn.length, 5)
        assert.ok(Math.min(...drawn) > 500, `${at}: an empty chart: ${drawn}`)
      }
      backgrounds.add(await evaluate(page, 'getComputedStyle(document.body).backgroundColor'))
      backgrounds.add(
        await evaluate(
          page,
          `document.querySelector('#chart-lr .u-legend tr:nth-child(2) .u-marker').style.borderColor`,
        ),
      )
    }
    assert.is(backgrounds.size, 4, `page and curves have other colours in the dark: ${[...backgrounds]}`)
    assert.equal(problems, [])
    assert.equal(
      requests.filter((url) => !url.startsWith('data:')),
      [address],
    )
  } finally {
    await browser.close()
  }
})

browserTest('a run that has only begun gives a page without gaps', async () => {
  const path = join(folder, 'begun.html')
  await writeReport(path, { ...report, events: events.slice(0, 2), samples: [] })
  const browser = await openBrowser()
  try {
    const page = await browser.newPage()
    const problems: string[] = []
    page.on('pageerror', (error) => problems.push(String(error)))
    await page.goto(pathToFileURL(path).href)
    assert.equal(await page.locator('h2').allTextContents(), ['Curves', 'Configuration'])
    assert.ok(Math.min(...(await evaluate<number[]>(page, drawnPixels))) > 100)
    assert.equal(problems, [])
  } finally {
    await browser.close()
  }
})

test.run()
