// npm run bench:web [-- --sizes 64,128]: what docs/web.md says of the page in numbers, as its tables: sizes of the files, and
// times in a Chromium of this machine.
import { copyFileSync, readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import type { Browser, Page } from 'playwright-core'
import { openBrowser } from '../../test/support/browser.js'
import { type Served, servePage, waitForResult } from '../../test/web/serve.js'
import { median } from '../timing.js'
import type { Measurement, Runtime } from './page.js'

const runtimes: readonly Runtime[] = ['atrous on WebGPU', 'onnxruntime-web on WebGPU', 'onnxruntime-web in WebAssembly']

const minutes = 60_000

const kilobytes = (bytes: number): string => (bytes / 1000).toFixed(bytes < 9950 ? 1 : 0)

const inWords = (milliseconds: number): string => {
  if (milliseconds >= 9950) return `${(milliseconds / 1000).toFixed(0)} s`
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`
  return `${milliseconds.toFixed(milliseconds < 9.95 ? 1 : 0)} ms`
}

const row = (...cells: readonly string[]): void => console.log(`| ${cells.join(' | ')} |`)

function printSizes(folder: string): void {
  row('file', 'KB', 'gzipped')
  row('---', '---', '---')
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const paths = files.map((entry) => relative(folder, join(entry.parentPath, entry.name))).sort()
  const isPart = (path: string) => path.startsWith('part-')
  const sizeOf = (of: readonly string[]) => {
    const contents = of.map((path) => readFileSync(join(folder, path)))
    const sum = (size: (bytes: Buffer) => number) => kilobytes(contents.reduce((total, each) => total + size(each), 0))
    return [sum((bytes) => bytes.length), sum((bytes) => gzipSync(bytes).length)] as const
  }
  for (const path of paths.filter((each) => !isPart(each))) row(`\`${path}\``, ...sizeOf([path]))
  const parts = paths.filter(isPart)
  row(`\`part-*.js\`, ${parts.length} files that are loaded when they are needed`, ...sizeOf(parts))
}

/** The page that measures, beside the page that is served. */
async function addPage(folder: string): Promise<void> {
  await build({
    entryPoints: [fileURLToPath(new URL('./page.js', import.meta.url))],
    outfile: join(folder, 'measure.js'),
    bundle: true,
    format: 'esm',
    platform: 'browser',
    logLevel: 'error',
  })
  const runtime = 'ort-wasm-simd-threaded.asyncify.wasm'
  copyFileSync(fileURLToPath(import.meta.resolve(`onnxruntime-web/${runtime}`)), join(folder, runtime))
}

async function measured<T>(what: string, measurement: () => Promise<T>, show: (value: T) => string): Promise<void> {
  let said: string
  try {
    said = show(await measurement())
  } catch (error) {
    said = `fails: ${error instanceof Error ? error.message.split('\n', 1)[0] : String(error)}`
  }
  row(what, said)
}

async function onPage<T>(browser: Browser, url: string, use: (page: Page) => Promise<T>): Promise<T> {
  const page = await browser.newPage()
  page.setDefaultTimeout(10 * minutes)
  try {
    await page.goto(url)
    return await use(page)
  } finally {
    await page.close()
  }
}

/** Milliseconds from opening the page to a segmented picture. */
async function firstResult(browser: Browser, { url }: Served): Promise<number> {
  const begin = performance.now()
  return onPage(browser, url, async (page) => {
    await waitForResult(page)
    return performance.now() - begin
  })
}

const predictions = (browser: Browser, { url }: Served, runtime: Runtime, size: number): Promise<Measurement> =>
  // Any page of that origin will do.
  onPage(browser, new URL('icon.svg', url).href, (page) =>
    page.evaluate(`import('/measure.js').then(() => measure(${JSON.stringify(runtime)}, ${size}))`),
  ) as Promise<Measurement>

/** Milliseconds from Start to the masks of both networks, and to a step of the supervised training. */
const watching = (browser: Browser, { url }: Served, step: number) =>
  onPage(browser, `${url}#watch`, async (page) => {
    await page.waitForSelector('html[data-ready]')
    const begin = performance.now()
    await page.click('#watch-go')
    for (const side of ['supervised', 'method']) await page.waitForSelector(`#watch-masks-${side}[data-step]`)
    const masks = performance.now() - begin
    await page.waitForFunction(
      `Number(document.getElementById('watch-masks-supervised').dataset.step) >= ${step}`,
      null,
      { polling: 50 },
    )
    return { masks, step: performance.now() - begin }
  })

const { values } = parseArgs({ options: { sizes: { type: 'string', default: '64,128' } } })
const sizes = values.sizes.split(',').map(Number)
const served = await servePage()
const browser = await openBrowser(true)
try {
  printSizes(served.folder)
  await addPage(served.folder)
  console.log('')
  row('', '')
  row('---', '---')
  await measured('from opening the page to the first segmented picture', () => firstResult(browser, served), inWords)
  for (const size of sizes) {
    for (const runtime of runtimes) {
      const show = ({ first, others, difference }: Measurement) =>
        `${inWords(median(others))}, the first time ${inWords(first)}; logits differ by ${difference.toExponential(0)} at most`
      await measured(
        `a picture of ${size}x${size} by ${runtime}`,
        () => predictions(browser, served, runtime, size),
        show,
      )
    }
  }
  const both = watching(browser, served, 5)
  await measured(
    'Watch it learn: from Start to the first masks of both networks',
    async () => (await both).masks,
    inWords,
  )
  await measured('to the fifth step of the supervised training', async () => (await both).step, inWords)
} finally {
  await browser.close()
  await served.end()
}
