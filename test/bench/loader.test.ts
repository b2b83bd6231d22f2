import { existsSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { measureLoader } from '../../bench/loader.js'
import { pascalLike, withPhotographs } from '../../bench/photographs.js'

test('the loader is measured with and without its cache, and its photographs are removed', async () => {
  let path = ''
  const { crop, bytes, fromFiles, fromCache } = await withPhotographs(pascalLike, (samples) => {
    path = samples[0]?.image ?? ''
    assert.ok(existsSync(path))
    return measureLoader(samples, 'unlabeled', 33, 0.2)
  })
  assert.is(crop, 33)
  assert.ok(bytes > 50_000 && bytes < 200_000, `${bytes} bytes`)
  // At so small a crop most of the time goes to decoding, which the cache saves.
  assert.ok(fromFiles > 0 && fromCache > 1.2 * fromFiles, `${fromFiles} from files, ${fromCache} from the cache`)
  assert.not.ok(existsSync(path))
})

test.run()
