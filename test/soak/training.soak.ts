// node build/test/soak/training.soak.js [--steps N]
//
// A long training of a very small network: PrevMatch with its previous models, loader, log, validation and checkpoints
// in twenty epochs. Without its garbage, the memory of process and device must be as flat in the second half as in the first.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { open } from '#dist/engine/node.js'
import { loadConfig } from '#dist/train/config/load.js'
import { train } from '#dist/train/run/training.js'
import { tinyData } from '../support/tiny-run.js'
import { MemoryLog } from './memory.js'

const EPOCHS = 20
/** MiB from the first half to the second. */
const ALLOWED = { process: 16, device: 0 }

const { values } = parseArgs({ options: { steps: { type: 'string', default: '10000' } } })
const perEpoch = Math.ceil(Number(values.steps) / EPOCHS)
const tiny = await tinyData('soak')
const device = await open()
try {
  const memory = new MemoryLog(device)
  // As many lines as the steps of an epoch need; images come back several times.
  const lines = readFileSync(join(tiny.data, 'unlabeled.txt'), 'utf8').trim().split('\n')
  const list = join(tiny.folder, 'many.txt')
  writeFileSync(list, Array.from({ length: 2 * perEpoch }, (_, i) => `${lines[i % lines.length]}\n`).join(''))
  const overrides = [
    `unlabeled_id_path=${list}`,
    `epochs=${EPOCHS}`,
    'crop_size=17',
    `log_interval=${perEpoch}`,
    'workers=1',
  ]
  const started = performance.now()
  let epoch = 0
  const line = (text: string) => {
    if (/mIoU/.test(text) && /epoch/i.test(text)) memory.take(++epoch * perEpoch, 'steps')
  }
  const { iterations } = await train(device, {
    config: loadConfig(tiny.config, overrides),
    savePath: join(tiny.folder, 'run'),
    tune: false,
    display: { live: false, status: () => {}, line, close: () => {} },
  })
  console.log(`${iterations} steps in ${((performance.now() - started) / 1000).toFixed(0)} s`)
  if (epoch !== EPOCHS) throw new Error(`${epoch} lines of epochs were seen, not ${EPOCHS}`)
  memory.checkFlat('training', ALLOWED)
} finally {
  device.destroy()
  rmSync(tiny.folder, { recursive: true })
}
