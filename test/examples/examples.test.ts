// Every example runs, and does what it says.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeScenes } from '#dist/demo/dataset.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { readModel } from '#dist/train/checkpoint/load-model.js'
import { prepareCheckpoint } from '#dist/train/checkpoint/write.js'
import { readList } from '#dist/train/data/dataset.js'
import { Random } from '#dist/train/random.js'
import { onDevice } from '../support/on-device.js'
import { smallModel } from '../support/small-model.js'

const { deviceTest } = await onDevice()
const folder = mkdtempSync(join(tmpdir(), 'atrous-examples-'))
const at = (name: string) => join(folder, name)
test.after(() => rmSync(folder, { recursive: true }))

function run(name: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`build/examples/${name}.js`, ...args], {
    encoding: 'utf8',
  })
  assert.is(status, 0, stderr)
  return stdout
}

const examples: Readonly<Record<string, () => void>> = {
  embed: () => {
    const losses = [...run('embed').matchAll(/loss ([\d.]+)/g)].map(([, loss]) => Number(loss))
    assert.ok((losses.at(-1) ?? 1) < 0.7 * (losses[0] ?? 0), losses.join())
  },
  'bring-your-own-device': () => {
    const printed = run('bring-your-own-device')
    assert.match(printed, /^product: 4 5 10 11$/m)
    assert.match(printed, /^my own mistake: /m)
  },
  'segment-a-picture': () => {
    const picture = readList(at('data/labeled.txt'), at('data'), 'required')[0]?.image ?? ''
    const printed = run('segment-a-picture', at('model.safetensors'), picture)
    const shares = [...printed.matchAll(/([\d.]+) % {2}[a-z]+, with a confidence of 0\.\d\d$/gm)]
    const sum = shares.reduce((total, [, share]) => total + Number(share), 0)
    // Six shares at most are rounded to a tenth.
    assert.ok(Math.abs(sum - 100) < 0.4, printed)
  },
  'fine-tune': () => {
    const [sample] = readList(at('data/labeled.txt'), at('data'), 'required')
    const [other] = readList(at('data/unlabeled.txt'), at('data'), 'unused')
    const [picture = '', mask = '', unlabeled = ''] = [sample?.image, sample?.label ?? '', other?.image]
    const printed = run('fine-tune', at('model.safetensors'), picture, mask, at('corrected.safetensors'), unlabeled)
    assert.match(printed, /^step 10 of 10: loss \d/m)
    assert.is([...printed.matchAll(/\d % of the labeled pixels are right/g)].length, 2)
    assert.is(readModel(at('corrected.safetensors')).classNames[2], 'house')
  },
}

test('each example has a test', () => {
  const names = readdirSync('examples').map((name) => name.replace(/\.ts$/, ''))
  assert.equal(names.sort(), Object.keys(examples).sort())
})

for (const [name, body] of Object.entries(examples)) {
  deviceTest(name, async (device) => {
    if (!existsSync(at('data'))) {
      await writeScenes(at('data'), { seed: 5, size: 48, labeled: 2, unlabeled: 2, validation: 1 })
      const config = { ...smallModel, nclass: 6 }
      const model = createModel(
        new Store(device, 'model'),
        { architecture: 'deeplabv3plus', config },
        new Random(3, 0, 0),
      )
      const classes = ['sky', 'land', 'house', 'tree', 'boat', 'water']
      const file = await prepareCheckpoint(model, { class_names: classes })
      file.write(at('model.safetensors'))
      model.store.destroy()
    }
    body()
  })
}

test.run()
