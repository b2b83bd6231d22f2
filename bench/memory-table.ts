// node build/bench/memory-table.js: plans the trainings of configs/ at the sizes of the published results, and writes the
// table of their memory into docs/memory.md.
import { readFileSync, writeFileSync } from 'node:fs'
import type { Device } from '#dist/engine/device.js'
import { open } from '#dist/engine/node.js'
import { type Config, loadConfig } from '#dist/train/config/load.js'
import { type Alternative, MemoryPlanner } from '#dist/train/run/memory-choice.js'
import { microBatches } from '#dist/train/trainer/micro-batches.js'

const documentPath = 'docs/memory.md'
const [begin, end] = ['<!-- The table is written by npm run docs:memory -->', '<!-- End of the table -->']

/** Sizes of the largest images of the validation lists. */
const images: Readonly<Record<string, readonly [width: number, height: number]>> = {
  pascal: [500, 500],
  cityscapes: [2048, 1024],
  coco: [640, 640],
  ade20k: [683, 512],
}

/** Trainings that the published codes compare with one another: the same network and crop for each method. */
const compared = [
  ['Pascal', 'configs/pascal.yaml', 321],
  ['Pascal', 'configs/pascal.yaml', 513],
  ['Cityscapes', 'configs/cityscapes.yaml', 801],
  ['COCO', 'configs/coco.yaml', 513],
  ['ADE20K', 'configs/ade20k.yaml', 513],
] as const
const backbones = ['resnet50', 'resnet101']
const comparedMethods = ['supervised', 'unimatch', 'prevmatch']

/** Methods whose published settings, batches and networks are their own. */
const others = [
  ['Pascal', 'configs/augseg-pascal.yaml'],
  ['Cityscapes', 'configs/augseg-cityscapes.yaml'],
  ['ADE20K', 'configs/dual-teacher-ade20k.yaml'],
  ['Pascal', 'configs/co-training-pascal-321.yaml'],
  ['Pascal', 'configs/co-training-pascal-513.yaml'],
  ['Cityscapes', 'configs/co-training-cityscapes.yaml'],
] as const

interface Row {
  readonly training: string
  readonly network: string
  readonly config: Config
}

function* trainings(): Generator<Row> {
  for (const [name, file, crop] of compared) {
    for (const backbone of backbones) {
      for (const method of comparedMethods) {
        const config = loadConfig(file, [`crop_size=${crop}`, `backbone=${backbone}`, `method=${method}`])
        yield { training: `${name} ${crop}`, network: backbone, config }
      }
    }
  }
  for (const [name, file] of others) {
    const config = loadConfig(file)
    const { crop_size: crop, batch_size: batch } = config
    const network = config.method === 'co-training' ? 'all three members' : config.backbone
    yield { training: `${name} ${crop}, ${batch} + ${batch}`, network, config }
  }
}

const gigabytes = (bytes: number): string => (bytes / 2 ** 30).toFixed(1)

const showTimed = ({ bytes, time }: Alternative): string => `${gigabytes(bytes)} (${time.toFixed(2)})`

/** Memory as it is, with every stage computed again, and the least, with parts of the batch. */
async function columns(device: Device, config: Config, half: boolean): Promise<string[]> {
  const [width, height] = sizeOf(config)
  const image = { width, height, data: new Uint8Array(width * height * 3) }
  const planner = new MemoryPlanner(device, { config: { ...config, amp: half }, image, keepBefore: false })
  const { first, stages } = planner
  const whole = await planner.alternative(first)
  const lean = await planner.alternative({ ...first, stages })
  let least = lean
  for (const micro of microBatches(config)) {
    const parts = await planner.alternative({ ...first, stages, micro })
    if (parts.bytes < least.bytes) least = parts
  }
  return [gigabytes(whole.bytes), showTimed(lean), `${showTimed(least)}, ${least.choice.micro}`]
}

function sizeOf({ dataset }: Config): readonly [number, number] {
  const size = images[dataset]
  if (!size) throw new Error(`nothing is known of the images of ${dataset}`)
  return size
}

const device = await open()
const rows: string[] = []
for (const { training, network, config } of trainings()) {
  const cells = [...(await columns(device, config, false)), ...(await columns(device, config, true))]
  const row = `| ${[training, network, config.method, ...cells].join(' | ')} |`
  console.log(row)
  rows.push(row)
}
const head = [
  '| training | network | method | float32 | all stages again | least, `micro_batch` | half | all stages again | least, `micro_batch` |',
  `|${' --- |'.repeat(9)}`,
]
const text = readFileSync(documentPath, 'utf8')
const [before, rest] = text.split(`${begin}\n`)
const after = rest?.split(`${end}\n`)[1]
if (before === undefined || after === undefined) throw new Error(`${documentPath} lacks the marks around its table`)
writeFileSync(documentPath, `${before}${begin}\n\n${[...head, ...rows].join('\n')}\n\n${end}\n${after}`)
device.destroy()
