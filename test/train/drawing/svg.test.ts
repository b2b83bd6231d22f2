// What is drawn as SVG: well-formed whatever the texts hold, with every class in its colour.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { vocPalette } from '#dist/train/data/classes.js'
import { legendSvg } from '#dist/train/drawing/legend.js'
import { Svg, shorten, textWidth } from '#dist/train/drawing/svg.js'
import { render } from '../../support/render.js'

const hostile = [
  '</text><script>x</script>',
  'a & "b" <c>',
  '天空',
  'سماء',
  '\u0000\u0008\uffff',
  '&#0;',
  ']]>',
  '\ud800',
]

test('the legend shows each class in its colour, with index and name, in columns of 24', async () => {
  for (const count of [1, 3, 60]) {
    const palette = vocPalette(count)
    const names = Array.from({ length: count }, (_, k) => `class number ${k}`)
    const svg = legendSvg(names, palette)
    const drawn = await render(svg)
    // Corners are round, and edges have an outline.
    for (const color of palette) assert.ok(drawn.count(color) > 20 ** 2 - 40, String(color))
    assert.equal(drawn.at(0, 0), [255, 255, 255])
    for (const [k, name] of names.entries()) assert.ok(svg.includes(`>${k}</text>`) && svg.includes(`>${name}</text>`))
    assert.is(drawn.height, 40 + Math.min(24, count) * 32 - 10)
  }
  assert.not.match(legendSvg(['0', '1'], vocPalette(2)), /0<\/text>[\s\S]*>0<\/text>/)
})

test('texts of any kind give a file that other programs read, and say the same', async () => {
  const svg = legendSvg(hostile, vocPalette(hostile.length))
  const drawn = await render(svg)
  for (const color of vocPalette(hostile.length)) assert.ok(drawn.count(color) > 300)
  assert.ok(svg.includes('&lt;/text&gt;&lt;script&gt;x&lt;/script&gt;'))
  assert.ok(svg.includes('a &amp; &quot;b&quot; &lt;c&gt;') && svg.includes('>天空<') && svg.includes('>سماء<'))
  const marked = new Svg()
  marked.rectangle(10, 10, 30, 20, [1, 2, 3], { hint: hostile.join('') })
  marked.text(hostile.join(' '), 5, 50, { upwards: true, bold: true, anchor: 'end' })
  assert.equal((await render(marked.file(60, 60))).at(25, 20), [1, 2, 3])
})

test('a range of colours goes from its first to its last', async () => {
  const svg = new Svg()
  svg.colorRange(0, 0, 101, 10, [
    [0, 0, 0],
    [200, 100, 50],
  ])
  const drawn = await render(svg.file(101, 10))
  const [middle] = drawn.at(50, 5)
  assert.ok(Math.abs(middle - 100) <= 2, String(middle))
  assert.ok((drawn.at(99, 5)[0] ?? 0) > 190)
})

test('long texts are shortened by letters, and wide letters take more room', () => {
  assert.is(shorten('abc', 3), 'abc')
  assert.is(shorten('abcd', 3), 'ab…')
  assert.is(shorten('😀😀😀', 3), '😀😀😀')
  assert.ok(textWidth('天空', 10) > textWidth('ab', 10))
  assert.is(textWidth('e\u0301', 10), textWidth('e', 10))
})

test.run()
