import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Progress } from '#dist/train/logging/progress.js'

test('progress shows the speed: a live line on a terminal, elsewhere a line every ten seconds', () => {
  for (const isTTY of [true, false]) {
    let [now, text] = [0, '']
    const write = (part: string) => {
      text += part
    }
    const progress = new Progress('evaluation', 100, { isTTY, columns: 80, write }, () => now)
    for (let i = 0; i < 100; i++) {
      now += 250
      progress.tick()
    }
    progress.finish()
    assert.is(text.split('\n').length - 1, isTTY ? 2 : 3)
    assert.match(text, /evaluation: 40\/100 {2}4\.00 images\/s {2}ETA 0:15/)
    assert.match(text, /evaluation: 100 images in 0:25, 4\.00 images\/s\n$/)
  }
})

test.run()
