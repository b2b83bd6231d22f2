import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { protocolOf } from '#dist/train/evaluation/protocol.js'

test('the protocol says all that a score depends on', () => {
  assert.is(protocolOf({ mode: 'original' }), 'whole images at their own size; label 255 ignored')
  const text = protocolOf({ mode: 'sliding_window', window: 801, flip: true, scales: [0.75, 1], ignoreIndex: 254 })
  assert.match(text, /windows of 801 in steps of 534.*scale 0\.75, 1, each also mirrored.*254/)
  assert.match(protocolOf({ mode: 'center_crop', window: 321 }), /321x321/)
  assert.match(protocolOf({ mode: 'original', amp: true }), /ignored; in half precision$/)
})

test.run()
