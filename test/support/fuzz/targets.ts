import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { encode } from 'fast-png'
import sharp from 'sharp'
import { elements } from '#dist/engine/shape.js'
import { checkpointModel, readCheckpoint } from '#dist/train/checkpoint/read.js'
import { loadConfig } from '#dist/train/config/load.js'
import { readEntries, readImage } from '#dist/train/data/dataset.js'
import { readStoredLabel } from '#dist/train/data/labels.js'
import { outputNames } from '#dist/train/drawing/masks.js'
import { UserError } from '#dist/train/error.js'
import { demanding, sourceOf } from '#dist/train/io/byte-source.js'
import { writeSafetensors } from '#dist/train/io/safetensors.js'
import { readZipDirectory, readZipEntry } from '#dist/train/io/zip.js'
import type { Random } from '../../../cases/case.js'
import { asTorch } from '../as-torch.js'
import { type Member, pickle, pthOf, zipOf } from '../torch-file.js'
import type { Target } from './fuzz.js'
import { type Mutation, mutateJson, pick, plain, pngChunks, words } from './mutate.js'

const fixtures = 'test/fixtures/checkpoint'
const filesIn = (folder: string, ending: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .sort()
    .map((name) => join(folder, name))

/** Pieces of pickles: every opcode with an operand, names that are allowed and that are not, memo traffic. */
const pickleWords: readonly Buffer[] = [
  ...Array.from({ length: 256 }, (_, opcode) => Buffer.from([opcode, 0, 0, 0, 0, 0, 0, 0, 0])),
  ...Array.from({ length: 256 }, (_, opcode) => Buffer.from([opcode])),
  ...['h\0', 'h\x01', 'q\0', 'q\x01', 'h\0h\0', '(', 't', 'R', 'Q', 'u', 'b'].map((text) => Buffer.from(text)),
  pickle.global('collections', 'OrderedDict'),
  pickle.global('torch', 'LongStorage'),
  pickle.global('torch._utils', '_rebuild_tensor_v2'),
  pickle.global('torch._utils', '_rebuild_parameter'),
  pickle.global('numpy', 'dtype'),
  pickle.global('numpy.core.multiarray', 'scalar'),
  pickle.global('_codecs', 'encode'),
  pickle.global('os', 'system'),
  ...[-1, 0, 1, 2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER].map(pickle.int),
  pickle.text('x'.repeat(1000)),
  pickle.storage('0', 4),
  pickle.tensor(pickle.storage('0', 4), 0, [2, 2], [2, 1]),
  pickle.tensor(pickle.storage('0', 4), 0, [2 ** 40, 0], [0, 0]),
]

const membersOf = (bytes: Buffer): Member[] => {
  const fail = (what: string): never => {
    throw new Error(what)
  }
  const file = demanding(sourceOf(bytes, 'seed'), fail)
  return [...readZipDirectory(file, fail).values()].map((entry) => ({
    name: entry.name,
    data: readZipEntry(file, entry, fail),
  }))
}

/** Zip archives that are sound, around contents and directories that are not. */
function zipMembers(seeds: ReadonlyMap<Buffer, readonly Member[]>): Mutation {
  const claims = (random: Random): NonNullable<Member['claims']> => {
    const field = pick(['size', 'compressed', 'method', 'crc'] as const, random)
    return { [field]: pick(field === 'method' ? [1, 8, 12, 99] : [0, 1, 8, 16, 2 ** 31, 2 ** 32 - 1], random) }
  }
  return (_, random) => {
    const members = [...pick([...seeds.values()], random)]
    const at = random.uniform() < 0.7 ? members.findIndex(({ name }) => name.endsWith('.pkl')) : -1
    const index = at >= 0 ? at : random.integer(members.length)
    const member = members[index] as Member
    const choice = random.integer(8)
    if (choice === 0) members[index] = { ...member, claims: claims(random) }
    else if (choice === 1) members.splice(index, 1)
    else if (choice === 2) members.push({ ...member, name: pick([member.name, '../../x', `${member.name}\n`], random) })
    else {
      let data: Buffer = Buffer.from(member.data)
      for (let k = random.integer(3); k >= 0; k--) data = pick([...plain, words(pickleWords)], random)(data, random)
      members[index] = { ...member, data }
    }
    return zipOf(members, { zip64: random.uniform() < 0.2 })
  }
}

function pthTarget(): Target {
  const files = filesIn(fixtures, '.pth').map((path) => readFileSync(path))
  const one = { dtype: 'F32', shape: [1], data: Float32Array.of(1) } as const
  const lightning = asTorch(new Map([['w', one]]), { prefix: 'model.', key: 'state_dict', beside: 'lightning' })
  const plain4 = pthOf(Float32Array.of(1, 2, 3, 4))
  const seeds = [...files, lightning, plain4, pthOf(Float32Array.of(1), undefined, { zip64: true })]
  const zips = new Map(
    seeds.filter((bytes) => bytes.subarray(0, 2).toString() === 'PK').map((bytes) => [bytes, membersOf(bytes)]),
  )
  const zip = zipMembers(zips)
  return { name: 'pth', seeds, mutations: [...plain, words(pickleWords), zip, zip, zip], read: readModel }
}

/** A checkpoint of either format, and the model that it says it is of. */
const readModel = (path: string) => {
  const checkpoint = readCheckpoint(path)
  try {
    checkpointModel(checkpoint, path)
  } catch (error) {
    // Tensors that are no model were read all the same.
    if (!(error instanceof UserError)) throw error
  }
}

/** Changes the header of a safetensors file as a value, and corrects its length. */
const safetensorsHeader: Mutation = (bytes, random) => {
  try {
    const end = 8 + Number(bytes.readBigUInt64LE(0))
    let header: unknown = JSON.parse(bytes.toString('utf8', 8, end))
    for (let k = random.integer(3); k >= 0; k--) header = mutateJson(header, random)
    const json = Buffer.from(JSON.stringify(header))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(json.length))
    return Buffer.concat([length, json, bytes.subarray(end)])
  } catch {
    return pick(plain, random)(bytes, random)
  }
}

function safetensorsTarget(folder: string): Target {
  const path = join(folder, 'seed')
  const tensor = (...shape: number[]) => ({ dtype: 'F32', shape, data: new Float32Array(elements(shape)) }) as const
  // The names that tell a model's widths.
  const layers = [1, 2, 3, 4].map((layer) => `backbone.layer${layer}.0.conv1`)
  const names = ['backbone.conv1.0', 'backbone.conv1.3', 'backbone.conv1.6', ...layers, 'backbone.layer1.0.conv3']
  const weights = [...names, 'reduce.0', 'head.b0.0', 'fuse.0', 'classifier'].map((name) => `${name}.weight`)
  const metadata = { model: '{"dilations":[1,2,3],"replace_stride_with_dilation":[false,false,true]}', epoch: '3' }
  writeSafetensors(
    path,
    weights.map((name) => [name, tensor(2, 1, 1, 1)]),
    metadata,
  )
  const whole = readFileSync(path)
  const seeds = [readFileSync(join(fixtures, 'odd_tensors.safetensors')), whole]
  const mutations = [...plain, safetensorsHeader, safetensorsHeader, safetensorsHeader]
  return { name: 'safetensors', seeds, mutations, read: readModel }
}

/** PNG files of every kind that labels have. */
function pngSeeds(): Promise<Buffer>[] {
  const [width, height] = [23, 9]
  const pixels = (channels: number) => Uint8Array.from({ length: width * height * channels }, (_, i) => (i * 37) % 5)
  const raw = (channels: 1 | 3 | 4) => sharp(pixels(channels), { raw: { width, height, channels } })
  const packed = new Uint8Array(Math.ceil((width * 2) / 8) * height)
  const words16 = Uint16Array.from({ length: width * height }, (_, i) => i)
  const encoded = [
    encode({ width, height, channels: 1, data: pixels(1) }),
    encode({ width, height, channels: 2, data: pixels(2) }),
    encode({ width, height, channels: 1, depth: 2, data: packed }),
    encode({ width, height, channels: 1, depth: 16, data: words16 }),
    encode({ width, height, channels: 1, data: pixels(1), palette: Array.from({ length: 8 }, (_, i) => [i, i, i]) }),
  ]
  return [
    ...encoded.map((bytes) => Promise.resolve(Buffer.from(bytes))),
    raw(3).png({ progressive: true, adaptiveFiltering: true }).toBuffer(),
    raw(4).png({ adaptiveFiltering: true }).toBuffer(),
    raw(1).png({ palette: true, colours: 4, progressive: true }).toBuffer(),
  ]
}

async function labelTarget(): Promise<Target> {
  const seeds = await Promise.all(pngSeeds())
  return {
    name: 'label',
    seeds,
    mutations: [...plain, pngChunks, pngChunks, pngChunks],
    read: (path) => readStoredLabel(path),
  }
}

async function imageTarget(): Promise<Target> {
  const [width, height] = [24, 17]
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 7919) % 256)
  const picture = () => sharp(data, { raw: { width, height, channels: 3 } })
  const seeds = await Promise.all([
    ...pngSeeds(),
    picture().jpeg().toBuffer(),
    picture().jpeg({ progressive: true }).withMetadata({ orientation: 6 }).toBuffer(),
    picture().greyscale().jpeg().toBuffer(),
    picture().webp().toBuffer(),
    picture().webp({ lossless: true }).toBuffer(),
    picture().tiff({ compression: 'lzw' }).toBuffer(),
    picture().gif().toBuffer(),
  ])
  return { name: 'image', seeds, mutations: [...plain, pngChunks], read: (path) => readImage(path) }
}

const yamlWords = [
  ...[
    '[',
    ']',
    '{',
    '}',
    ': ',
    '- ',
    '? ',
    '&a ',
    '*a',
    '&b [*a,*a,*a]',
    '<<: *a',
    '\n',
    '\n  ',
    '#',
    '|\n',
    '>-\n',
    '"',
    "'",
  ],
  ...[
    '!!binary ',
    '!!set ',
    '!!omap ',
    '!!float ',
    '!x ',
    '%YAML 1.1\n',
    '---\n',
    '...\n',
    '\t',
    '\u0000',
    '\ufeff',
    '\u0085',
  ],
  ...[
    '__proto__: ',
    'constructor: ',
    '~',
    '.inf',
    '.nan',
    '-0',
    '1e999',
    '0x7fffffffffffffff',
    'true',
    '2001-01-01',
    '=',
    '1:2',
  ],
  '['.repeat(50),
  '- '.repeat(50),
  'lr: &a [*a]\n',
  'a: &a [x,x]\nb: &b [*a,*a]\n',
]

function yamlTarget(): Target {
  const seeds = filesIn('configs', '.yaml').map((path) => readFileSync(path))
  return {
    name: 'yaml',
    seeds,
    mutations: [...plain, words(yamlWords), words(yamlWords)],
    read: (path) => loadConfig(path),
  }
}

/** Whether a path, once resolved, lies in a folder; the way of asking is another than the reader's. */
const liesIn = (folder: string, path: string) => resolve(folder, path).startsWith(`${resolve(folder)}${sep}`)

function listTarget(): Target {
  const seeds = [
    'a.jpg a.png\n',
    'JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png\nb.jpg c.png\n',
    'a b.jpg\tc d.png\n',
  ]
  const hostile = [
    '..',
    '../',
    '/',
    '/etc/passwd',
    'a/../..',
    './',
    '//',
    '\\',
    '..\\',
    '~',
    '\0',
    '\r',
    '\t',
    ' ',
    '\n',
    '\u2028',
    '%2e%2e/',
    'x/../../../y',
    '\u001b[2J',
    '.',
    'file://',
  ]
  const read = (path: string, folder: string) => {
    const entries = readEntries(path, folder)
    for (const file of entries.flatMap(({ image, label }) => [image, label ?? image])) {
      if (!liesIn(folder, file)) throw new Error(`${JSON.stringify(file)} leaves the folder`)
    }
    // Where predictions of these images would be written.
    for (const name of outputNames(entries.map(({ image }) => image))) {
      const file = `${name}.png`
      if (dirname(relative(folder, resolve(folder, file))) !== '.')
        throw new Error(`${file} would be written elsewhere`)
    }
  }
  return {
    name: 'list',
    seeds: seeds.map((text) => Buffer.from(text)),
    mutations: [...plain, words(hostile), words(hostile)],
    read,
  }
}

/** Every reader of files that come from elsewhere. `folder` is for the making of seeds. */
export async function targets(folder: string): Promise<Target[]> {
  mkdirSync(folder, { recursive: true })
  return [pthTarget(), safetensorsTarget(folder), await labelTarget(), await imageTarget(), yamlTarget(), listTarget()]
}
