// What check-data says of images and labels that can be read: scenes of coloured shapes, and what can be wrong with them.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type ListName, reportOf } from '#dist/train/data/checks.js'
import { vocPalette } from '#dist/train/data/classes.js'
import type { Sample } from '#dist/train/data/dataset.js'
import { directions, factsOf } from '#dist/train/data/image-facts.js'
import { inspectSamples } from '#dist/train/data/inspect.js'
import type { LabelRules } from '#dist/train/data/label-rules.js'
import { type CheckedList, remarksOnLists } from '#dist/train/data/list-checks.js'
import type { Image } from '#dist/train/data/pixels.js'
import { Random } from '#dist/train/random.js'

const test = suite('doubts')
const folder = mkdtempSync(join(tmpdir(), 'doubts-'))
test.after(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

const names = ['ground', 'box', 'disc']
const rules: LabelRules = { nclass: 3, ignoreIndex: 255, reduceZero: false }
const colors = [
  [90, 110, 80],
  [190, 60, 50],
  [60, 90, 200],
]

/** A box above and a disc below on the left, at places that differ from seed to seed, and the noise of a camera. */
function scene(seed: number, width = 96, height = 80): { image: Image; label: Image } {
  const random = new Random(seed)
  const [left, top] = [4 + random.integer(0, 12), 4 + random.integer(0, 8)]
  const label = Uint8Array.from({ length: width * height }, (_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)]
    if (x >= left && x < left + 30 && y >= top && y < top + 18) return 1
    return (x - left - 12) ** 2 + (y - top - 48) ** 2 < 150 ? 2 : 0
  })
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const color = colors[label[Math.floor(i / 3)] ?? 0]
    return Math.max(0, Math.min(255, (color?.[i % 3] ?? 0) + random.integer(-9, 10)))
  })
  return { image: { data, width, height }, label: { data: label, width, height } }
}

async function write(name: string, { image, label }: { image: Image; label: Image }): Promise<Sample> {
  const { width, height } = image
  await sharp(image.data, { raw: { width, height, channels: 3 } }).toFile(at(`${name}.png`))
  const { data } = label
  writeFileSync(at(`${name}_m.png`), encode({ width: label.width, height: label.height, channels: 1, data }))
  return { name, image: at(`${name}.png`), label: at(`${name}_m.png`) }
}

const scenes = await Promise.all(Array.from({ length: 9 }, (_, i) => write(`scene-${i}`, scene(i))))

async function look(
  samples: Sample[],
  list: ListName = 'labeled',
  changes: Partial<LabelRules> = {},
): Promise<CheckedList> {
  const inspections = await inspectSamples(samples, { ...rules, ...changes }, { workers: 1 })
  return { samples, inspections, report: reportOf(samples, inspections, names, { ...rules, ...changes }, list) }
}

const doubtsOn = async (...all: Parameters<typeof look>) => (await look(...all)).report.doubts

/** The only doubt matches all patterns. */
function isOne(doubts: readonly string[], ...patterns: RegExp[]): void {
  assert.is(doubts.length, 1, doubts.join('\n'))
  for (const pattern of patterns) assert.match(doubts[0] ?? '', pattern)
}

/** A label as it lies after a move. */
function laid(label: Image, direction: number): Image {
  const { width, height, data } = label
  const data2 = new Uint8Array(data.length)
  for (let i = 0; i < data.length; i++) {
    const [x, y] = directions[direction]?.move(i % width, Math.floor(i / width), width, height) ?? [0, 0]
    data2[y * width + x] = data[i] ?? 0
  }
  return { data: data2, width, height }
}

test('scenes with their labels raise no doubt', async () => {
  const { report } = await look(scenes)
  assert.equal(report.doubts, [])
  assert.equal(report.remarks, [])
  assert.equal(report.problems, [])
})

test('labels that follow the edges only when they are turned or mirrored are counted, with the direction', async () => {
  for (let direction = 1; direction < directions.length; direction++) {
    const square = scene(20 + direction, 88, 88)
    // What undoes a direction: all are their own inverses but the two turns by 90°.
    const inverse = direction === 4 ? 5 : direction === 5 ? 4 : direction
    const turned = await write(`laid-${direction}`, { ...square, label: laid(square.label, inverse) })
    const doubts = await doubtsOn([...scenes, turned])
    isOne(doubts, /1 label follows the edges of its image only when /, /: check how/, new RegExp(`laid-${direction}_m`))
    assert.ok(doubts[0]?.includes(`only when ${directions[direction]?.name},`), doubts[0])
  }
})

test('edges along borders are twice as strong as elsewhere, and as strong for a label of another image', () => {
  const { image, label } = scene(1)
  const own = factsOf(image, label).edges
  assert.is(own.length, 4)
  assert.ok((own[0] ?? 0) > 2, own.join())
  assert.is(factsOf(image, null).edges.length, 0)
  assert.is(factsOf(image, { ...label, data: new Uint8Array(label.data.length) }).edges.length, 0)
  assert.is(factsOf({ ...image, data: image.data.map(() => 50) }, label).edges.length, 0)
})

test('labels that have nothing to do with their images are told by five of them', async () => {
  const noise = (seed: number): Image => {
    const random = new Random(seed, 9)
    const { image } = scene(seed)
    return { ...image, data: image.data.map(() => random.integer(0, 256)) }
  }
  const wrong = await Promise.all(
    Array.from({ length: 5 }, (_, i) => write(`noise-${i}`, { ...scene(i), image: noise(i) })),
  )
  isOne(
    await doubtsOn(wrong),
    /the borders of the 5 labels have nothing to do with the edges/,
    /belongs to which image/,
  )
  assert.equal(await doubtsOn(wrong.slice(0, 4)), [])
})

test('images that are almost black or of one colour are counted, labeled or not', async () => {
  const { image, label } = scene(3)
  const dark = await write('dark', { label, image: { ...image, data: image.data.map((value) => value >> 4) } })
  // A mask listed as an image.
  const classes = Uint8Array.from(image.data, (_, i) => label.data[Math.floor(i / 3)] ?? 0)
  const mask = await write('mask', { label, image: { ...image, data: classes } })
  const flat = await write('flat', { label, image: { ...image, data: image.data.map((_, i) => 140 + (i % 3)) } })
  const bare = [...scenes, dark, mask, flat].map((sample) => ({ ...sample, label: null }))
  const doubts = await doubtsOn(bare, 'unlabeled')
  assert.is(doubts.length, 2, doubts.join('\n'))
  assert.match(doubts[0] ?? '', /2 images are almost black .*dark\.png: stretch/)
  assert.match(doubts[1] ?? '', /1 image is of nearly one colour, such as .*flat\.png/)
})

test('ignored labels, one class alone, and lists without a pixel that counts are told', async () => {
  const changed = (name: string, seed: number, change: (value: number, i: number) => number) => {
    const { image, label } = scene(seed)
    return write(name, { image, label: { ...label, data: label.data.map(change) } })
  }
  const sparse = await changed('sparse', 4, (value, i) => (i % 50 === 0 ? value : 255))
  const nothing = await changed('nothing', 5, () => 255)
  const single = await changed('single', 6, (value) => (value === 0 ? 0 : 255))
  isOne(await doubtsOn([...scenes, nothing]), /1 label is ignored as a whole, such as .*nothing_m/)
  isOne(await doubtsOn([...scenes, sparse]), /1 label is ignored to 95 % or more, such as .*sparse_m/)
  const much = await doubtsOn([sparse])
  assert.match(much[0] ?? '', /98\.0 % of all pixels are ignored: check ignore_index, label_map/)
  isOne(await doubtsOn([single]), /all labels show one class alone, ground: there is nothing to tell apart/)
  const none = await doubtsOn([nothing], 'validation')
  assert.match(none[0] ?? '', /no pixel of any label counts, so there is nothing to validate on/)
})

test('a palette in the usual colours of other classes is doubted where no colours are configured', async () => {
  const { image, label } = scene(10)
  const sample = await write('usual', { image, label })
  const usual = vocPalette(3)
  const order = [2, 0, 1].map((k) => [...(usual[k] ?? [])])
  const indices = label.data.map((value) => (value + 1) % 3)
  const palette = { width: label.width, height: label.height, channels: 1, data: indices, palette: order } as const
  writeFileSync(sample.label ?? '', encode(palette))
  const usualColors = new Map(usual.map(([r, g, b], k) => [(r << 16) | (g << 8) | b, k]))
  const inspections = await inspectSamples([sample], rules, { workers: 1, usualColors })
  const { doubts, classes } = reportOf([sample], inspections, names, rules, 'labeled')
  isOne(
    doubts,
    /1 label has a palette in the colours of other classes; indices count, .*class 2 disc by colour and class 0 ground by index/,
  )
  // Indices count: most of the scene is ground, stored as 1.
  assert.ok((classes[1]?.share ?? 0) > 0.5)
  const configured = { ...rules, colors: usualColors }
  const again = reportOf(
    [sample],
    await inspectSamples([sample], configured, { workers: 1 }),
    names,
    configured,
    'labeled',
  )
  assert.equal(again.doubts, [])
  assert.ok((again.classes[0]?.share ?? 0) > 0.5)
})

test('EXIF orientations are counted: applied, not applied, or left where only the stored pixels fit the label', async () => {
  const { image, label } = scene(7)
  const { width, height } = image
  const turned = async (name: string, orientation: number, shown: Image): Promise<Sample> => {
    const sample = await write(name, { image, label: shown })
    await sharp(image.data, { raw: { width, height, channels: 3 } })
      .withMetadata({ orientation })
      .toFile(at(`${name}-x.png`))
    return { ...sample, image: at(`${name}-x.png`) }
  }
  const upright = await turned('upright', 3, laid(label, 3))
  const sideways = await turned('sideways', 6, label)
  const first = await look([...scenes, upright])
  assert.equal(first.report.doubts, [])
  isOne(first.report.remarks, /1 image carries an EXIF orientation, which is applied, such as .*upright-x/)
  const second = await look([...scenes, sideways])
  assert.equal(second.report.problems, [])
  isOne(second.report.remarks, /is taken as stored, as only so the label fits.*sideways-x/, /exif_orientation: stored/)
  isOne((await look([...scenes, upright, sideways])).report.doubts, /is taken as stored/)
  const stored = await look([...scenes, sideways], 'labeled', { orientation: 'stored' })
  isOne(stored.report.remarks, /1 image carries an EXIF orientation, which is not applied/)
  // A mask that follows the stored pixels of an image that is shown upside down.
  isOne(await doubtsOn([...scenes, await turned('stored', 3, label)]), /only when turned by 180°/, /exif_orientation/)
})

test('images of the validation list are found by their pixels, and classes that are never learned by name', async () => {
  const [one, two] = [scenes[0], scenes[1]]
  if (!one || !two) throw new Error('there are scenes')
  const copy: Sample = { name: 'copy.tif', image: at('copy.tif'), label: null }
  await sharp(one.image).tiff({ compression: 'lzw' }).toFile(copy.image)
  const discless = await write('discless', {
    ...scene(8),
    label: { ...scene(8).label, data: scene(8).label.data.map((value) => (value === 2 ? 0 : value)) },
  })
  const lists = new Map<ListName, CheckedList>([
    ['labeled', await look([discless])],
    ['unlabeled', await look([copy, { ...two, label: null }], 'unlabeled')],
    ['validation', await look([one, two], 'validation')],
  ])
  assert.equal(remarksOnLists(lists, 1), [
    '1 unlabeled images are validation images, too, the first is scene-1',
    '1 unlabeled images have the pixels of validation images under other names, the first is copy.tif (as scene-0)',
    'in validation labels, but in no labeled image: disc',
  ])
})

test('an epoch that leaves labeled images out says so', async () => {
  const lists = new Map<ListName, CheckedList>([
    ['labeled', await look(scenes.slice(0, 5))],
    [
      'unlabeled',
      await look(
        scenes.slice(5, 8).map((sample) => ({ ...sample, label: null })),
        'unlabeled',
      ),
    ],
  ])
  isOne(remarksOnLists(lists, 2), /one pass over the 3 unlabeled images, in which 2 of the 5 labeled ones take part/)
  lists.delete('unlabeled')
  assert.equal(remarksOnLists(lists, 2), [])
})

test.run()
