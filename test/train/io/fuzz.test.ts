// Hostile files: a thousand mutated inputs for every reader. `npm run soak` gives each a hundred thousand.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { fuzz, showFigures } from '../../support/fuzz/fuzz.js'
import { targets } from '../../support/fuzz/targets.js'

const test = suite('fuzz')
const folder = mkdtempSync(join(tmpdir(), 'atrous-fuzz-'))
test.after(() => rmSync(folder, { recursive: true }))

for (const target of await targets(folder)) {
  test(`${target.name}: mutated files are read or refused in one line, and nothing else happens`, async () => {
    for (const seed of target.seeds) assert.ok(seed.length > 0)
    const figures = await fuzz(target, 1000)
    console.log(showFigures(target.name, figures))
    assert.ok(figures.reasons >= 5, `${figures.reasons} reasons: the mutations do not reach far`)
  })
}

test.run()
