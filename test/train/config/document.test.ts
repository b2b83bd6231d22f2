// The documented keys are those of the schema.
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { configSchema, keysBySubject } from '#dist/train/config/schema.js'
import { configTables, currentDocument, documentPath } from '../../support/config-table.js'

test('docs/configuration.md is what the schema says (else: npm run docs)', () => {
  const text = readFileSync(documentPath, 'utf8')
  assert.ok(text === currentDocument(text), 'run npm run docs')
})

test('every key has a row with its values and default', () => {
  const keys = Object.values(keysBySubject()).flatMap((group) => Object.keys(group))
  assert.equal(keys.sort(), Object.keys(configSchema().shape).sort())
  const tables = configTables()
  for (const key of keys) assert.match(tables, `| \`${key}\` | `)
  assert.match(tables, '| `crop_size` | whole number, 8 to 4096 | required | ')
  assert.match(tables, '| `criterion.kwargs.thresh` | number, 0 to 1 |  | ')
  assert.match(tables, '| `dilations` | 3 whole numbers, 1 to 1000 | `[6, 12, 18]` | ')
})

test('tables that are not current are replaced, and the text around them is not', () => {
  const text = readFileSync(documentPath, 'utf8')
  const old = text.replace('| `lr` |', '| `learning_rate` |').replace(/\| `seed`.*\n/, '')
  assert.is.not(old, text)
  assert.is(currentDocument(old), text)
  assert.throws(() => currentDocument('no marks'), /lacks the marks/)
})

test.run()
