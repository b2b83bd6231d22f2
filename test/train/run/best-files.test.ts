// The best models of a run, whatever becomes of its folder.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeAtomically } from '#dist/train/io/files.js'
import { WriteFailures } from '#dist/train/io/write-failures.js'
import { BestModels } from '#dist/train/run/best-files.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-best-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))
const best = join(folder, 'best.safetensors')

/** A file whose writing is counted. */
function countedFile(text: string) {
  let count = 0
  const write = (path: string) => {
    count++
    writeAtomically(path, [Buffer.from(text)])
  }
  return { write, count: () => count }
}

test('the best model is written once, again where it is gone, and until it can be written', () => {
  const [models, failures] = [new BestModels(), new WriteFailures(folder, () => {})]
  const [first, better] = [countedFile('first'), countedFile('better')]
  const write = () => models.write(folder, failures)
  models.add(new Map([['best.safetensors', first]]))
  write()
  write()
  assert.is(readFileSync(best, 'utf8'), 'first')
  assert.is(first.count(), 1)
  rmSync(folder, { recursive: true })
  write()
  assert.equal(failures.paths, [best])
  mkdirSync(folder)
  write()
  assert.equal(failures.paths, [])
  assert.is(readFileSync(best, 'utf8'), 'first')
  models.add(new Map([['best.safetensors', better]]))
  write()
  assert.is(readFileSync(best, 'utf8'), 'better')
  assert.is(better.count(), 1)
})

test.run()
