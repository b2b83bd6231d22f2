// node build/test/soak/fuzz.soak.js [--count N] [--from N] [--only NAME]
//
// Hostile files: a hundred thousand mutated inputs for every reader, the same ones in every run. An input that does
// harm is named by its number: --only NAME --from NUMBER --count 1 repeats it.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fuzz, showFigures } from '../support/fuzz/fuzz.js'
import { targets } from '../support/fuzz/targets.js'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '100000' },
    from: { type: 'string', default: '0' },
    only: { type: 'string' },
  },
})
const folder = mkdtempSync(join(tmpdir(), 'atrous-fuzz-'))
try {
  const chosen = (await targets(folder)).filter(({ name }) => values.only === undefined || name === values.only)
  if (chosen.length === 0) throw new Error(`--only ${values.only}: there is no such reader`)
  for (const target of chosen) {
    console.log(showFigures(target.name, await fuzz(target, Number(values.count), Number(values.from))))
  }
} finally {
  rmSync(folder, { recursive: true })
}
