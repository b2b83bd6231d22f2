// The web page where SwiftShader takes minutes: the bits of a training, trainings that are watched, and a GPU that is lost
// meanwhile.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { browserPath, openBrowser } from '../support/browser.js'
import { skipUnless } from '../support/skip.js'
import { hashes, notComparable } from '../web/same-bits.js'
import { servePage, waitForResult } from '../web/serve.js'

const minutes = 60_000

skipUnless(notComparable === undefined, notComparable ?? '')(
  'two steps of PrevMatch have the same bits in a page as in Node',
  async () => {
    for (const [page, node] of await hashes(['training'])) {
      assert.match(page, /^[0-9a-f]{64}$/)
      assert.is(page, node)
    }
  },
)

skipUnless(browserPath !== undefined, 'there is no Chromium')(
  'trainings that are watched go on from their last copy where the GPU is lost',
  async () => {
    const served = await servePage()
    const browser = await openBrowser(true)
    try {
      const page = await browser.newPage()
      await page.goto(`${served.url}#watch`)
      await waitForResult(page)
      await page.click('#watch-go')
      const stepOf = async (side: string) =>
        Number(await page.locator(`#watch-masks-${side}`).getAttribute('data-step', { timeout: 5 * minutes }))
      const reaches = (step: number) =>
        page.waitForFunction(
          `['supervised', 'method'].every((side) => Number(document.getElementById('watch-masks-' + side).dataset.step) >= ${step})`,
          null,
          { timeout: 10 * minutes, polling: 500 },
        )
      await reaches(5)
      const session = await browser.newBrowserCDPSession()
      await session.send('Browser.crashGpuProcess').catch(() => {})
      await page.waitForFunction(
        "/trainings go on from step \\d+/.test(document.getElementById('status-log').textContent)",
        null,
        {
          timeout: 10 * minutes,
          polling: 500,
        },
      )
      await reaches(10)
      assert.ok((await stepOf('supervised')) >= 10 && (await stepOf('method')) >= 10)
    } finally {
      await browser.close()
      await served.end()
    }
  },
)

test.run()
