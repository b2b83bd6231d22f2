// The same kernels give the same bits in a page as in Node, where both use the same driver. A training step is compared
// in test/soak/web.soak.ts: on SwiftShader its kernels take longer to compile than all tests here.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { skipUnless } from '../support/skip.js'
import { hashes, inPage, notComparable } from './same-bits.js'

const comparedTest = skipUnless(notComparable === undefined, notComparable ?? '')

comparedTest('a matrix product and a prediction have the same bits in a page as in Node', async () => {
  for (const [page, node] of await hashes(['product', 'prediction'])) {
    assert.match(page, /^[0-9a-f]{64}$/)
    assert.is(page, node)
  }
})

comparedTest('canvases and images of a page are segmented as their pixels, and on the device', async () => {
  const found = (await inPage('pictures-page.js', 'segmentAll(1, 48)')) as Record<string, readonly number[]>
  assert.ok(new Set(found.pixels).size > 1)
  assert.equal(found.canvas, found.pixels)
  assert.equal(found.device, found.pixels)
})

test.run()
