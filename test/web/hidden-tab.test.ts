// A training goes on behind another tab, where browsers let timers run once in a second and frames not at all.
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { browserPath } from '../support/browser.js'
import { openRawBrowser, type Target } from '../support/raw-browser.js'
import { skipUnless } from '../support/skip.js'
import { countTimers, servePage } from './serve.js'

/** Waits until an expression is true in a tab. */
async function until(tab: Target, condition: string, seconds: number): Promise<void> {
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; await sleep(200)) {
    if (await tab.evaluate(condition)) return
  }
  throw new Error(`${condition} is not true after ${seconds} s`)
}

/** Steps of the supervised training that the page was told of. */
const step = "Number(/^step (\\d+)/.exec(document.getElementById('watch-state-supervised').textContent)?.[1] ?? 0)"

/** Milliseconds of twenty timers of a millisecond, one after the other. */
const timers = `new Promise((resolve) => {
  const begin = performance.now()
  const next = (left) => (left === 0 ? resolve(performance.now() - begin) : setTimeout(next, 1, left - 1))
  next(20)
})`

skipUnless(browserPath !== undefined, 'there is no Chromium')(
  'a training that is watched goes on in a hidden tab, by no timer and no frame',
  async () => {
    const served = await servePage()
    const browser = await openRawBrowser()
    try {
      const tab = await browser.openTab(`${served.url}#watch`)
      await until(tab, "document.documentElement.dataset.ready === 'true'", 120)
      const [worker] = browser.workers
      assert.ok(worker)
      await worker?.evaluate(countTimers)
      await tab.evaluate("document.getElementById('watch-go').click()")
      await until(tab, `${step} > 0`, 300)
      assert.is(await tab.evaluate('document.visibilityState'), 'visible')
      await browser.openTab('about:blank')
      await until(tab, "document.visibilityState === 'hidden'", 10)
      const before = Number(await tab.evaluate(step))
      // The tab is really one that the browser slows down.
      assert.ok(Number(await tab.evaluate(timers)) > 5000)
      await until(tab, `${step} >= ${before + 3}`, 300)
      assert.is(await tab.evaluate('document.visibilityState'), 'hidden')
      assert.equal(await worker?.evaluate('asked'), [])
    } finally {
      await browser.close()
      await served.end()
    }
  },
)

test.run()
