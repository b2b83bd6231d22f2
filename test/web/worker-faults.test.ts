// A worker that does not start, or dies: every call is refused, and the page says what to do.
import type { Browser, Page } from 'playwright-core'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { browserPath, openBrowser } from '../support/browser.js'
import { skipUnless } from '../support/skip.js'
import { type Served, servePage, waitForResult } from './serve.js'

const pageTest = skipUnless(browserPath !== undefined, 'there is no Chromium')

let served: Served
let browser: Browser

test.before(async () => {
  if (!browserPath) return
  served = await servePage()
  browser = await openBrowser()
})

test.after(async () => {
  await browser?.close()
  await served?.end()
})

const saying = (reason: string) => `he worker of the page cannot go on: ${reason}; reload the page`

/** What is said of one more call, which must not wait for ever. */
async function nextCall(page: Page): Promise<string> {
  await page.evaluate("document.getElementById('toast').textContent = ''")
  await page.click('#tab-try')
  await page.click('#try-onnx')
  await page.waitForFunction("document.getElementById('toast').textContent !== ''", null, { timeout: 5000 })
  return page.locator('#toast').innerText()
}

const starts: readonly (readonly [what: string, answer: object, reason: string])[] = [
  [
    'throws at its start',
    { contentType: 'text/javascript', body: 'throw new Error("broken")' },
    'Uncaught Error: broken',
  ],
  ['is not there', { status: 404 }, 'it does not load'],
]

for (const [what, answer, reason] of starts) {
  pageTest(`a worker that ${what} leaves no call waiting`, async () => {
    const page = await browser.newPage()
    await page.route('**/worker.js', (route) => route.fulfill(answer))
    await page.goto(served.url)
    await page.waitForSelector('html[data-ready]')
    assert.is(await page.locator('#notice').innerText(), `T${saying(reason)}.`)
    assert.is(await nextCall(page), `t${saying(reason)}`)
    await page.close()
  })
}

pageTest('a worker that dies leaves no call waiting, be it asked before or afterwards', async () => {
  const page = await browser.newPage()
  await page.goto(served.url)
  await waitForResult(page)
  assert.ok(await page.locator('#notice').isVisible())
  assert.not.match(await page.locator('#notice').innerText(), /worker/)
  const [worker] = page.workers()
  // Answers no more, and then ends, as one does that runs out of memory.
  await worker?.evaluate('self.onmessage = () => {}')
  await page.selectOption('#try-side', '64')
  await page.waitForSelector('#try-busy', { state: 'visible' })
  await worker?.evaluate('self.close()').catch(() => {})
  await page.waitForSelector('#try-busy', { state: 'hidden' })
  assert.is(await page.locator('#toast').innerText(), `t${saying('it ended')}`)
  assert.is(await page.locator('#notice').innerText(), `T${saying('it ended')}.`)
  assert.is(await nextCall(page), `t${saying('it ended')}`)
  await page.close()
})

test.run()
