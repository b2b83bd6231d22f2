// The confusion matrix as a table and as a picture.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { confusionCsv, confusionSvg } from '#dist/train/evaluation/confusion.js'
import { scoresOf } from '#dist/train/evaluation/metrics.js'
import { render } from '../../support/render.js'

// Class 0 found 3 of 4 times, class 1 found 2 of 4 times, class 2 only predicted, class 3 nowhere.
const counts = Uint32Array.of(3, 1, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
const names = ['tree', 'dry grass, hay', 'boat', 'sea & <sky>']

test('the confusion matrix as CSV quotes names', () => {
  const lines = confusionCsv(counts, names).split('\n')
  assert.is(lines[0], 'ground truth \\ prediction,tree,"dry grass, hay",boat,sea & <sky>')
  assert.is(lines[2], '"dry grass, hay",1,2,1,0')
  assert.is(lines.length, 6)
})

test('its picture is blue on the diagonal, red beside it, and grey for absent classes', async () => {
  const svg = confusionSvg(counts, scoresOf(counts, 4), names, 'a caption; of some length')
  const drawn = await render(svg)
  const where = (name: string) => {
    const [, left = '', top = '', fill = ''] =
      new RegExp(`<rect x="(.*?)" y="(.*?)" width="63" height="63" fill="(.*?)"><title>${name}: `).exec(svg) ?? []
    return { at: drawn.at(Number(left) + 3, Number(top) + 3), fill, left: Number(left), top: Number(top) }
  }
  const right = where('tree, taken for tree')
  const wrong = where('tree, taken for dry grass, hay')
  assert.is(wrong.left - right.left, 64)
  assert.is(where('dry grass, hay, taken for tree').top - right.top, 64)
  assert.ok(right.at[2] > right.at[0] + 40, String(right.at))
  assert.ok(wrong.at[0] > wrong.at[2] + 40, String(wrong.at))
  // Two rows of four cells, and the rest of the bars.
  assert.ok(drawn.count([238, 240, 243]) > 2 * 4 * 60 ** 2)
  for (const text of ['75.0', '25.0', '50.0', '60.0', '40.0', 'a caption; of some length', 'sea &amp; &lt;sky&gt;']) {
    assert.ok(svg.includes(`>${text}</text>`), text)
  }
  assert.match(svg, 'mIoU 25.00, over the 3 classes that occur 33.33')
})

test('many classes have room, and what is not there takes none', async () => {
  const many = Array.from({ length: 150 }, (_, k) => `class ${k}`)
  const identity = Float64Array.from({ length: 150 * 150 }, (_, i) => (i % 151 === 0 ? 1 : 0))
  const svg = confusionSvg(identity, scoresOf(identity, 150), many, '')
  const { width, height } = await render(svg)
  assert.ok(width > 1800 && height > 1800)
  assert.is(svg.match(/<title>/g)?.length, 150)
})

test.run()
