/** Red, green, blue: 0 to 255. */
export type Rgb = readonly [number, number, number]

/** Classes of a data set, in the order of their indices. */
export interface ClassSet {
  readonly names: readonly string[]
  readonly palette: readonly Rgb[]
}

const list = (names: string): string[] => names.split(',').map((name) => name.trim().replace(/\s+/g, ' '))

/** How a configuration writes a colour. */
export const hexColor = /^#[0-9a-f]{6}$/i

/** A colour of six hexadecimal digits. */
export function parseColor(hex: string): Rgb {
  const value = Number.parseInt(hex, 16)
  return [value >> 16, (value >> 8) & 255, value & 255]
}

/** A colour as 0xRRGGBB. */
export const packColor = ([red, green, blue]: Rgb): number => (red << 16) | (green << 8) | blue

/** A colour as '#rrggbb'. */
export const showColor = (rgb: Rgb): string => `#${rgb.map((value) => value.toString(16).padStart(2, '0')).join('')}`

const colors = (text: string): Rgb[] => text.trim().split(/\s+/).map(parseColor)

/** The colour map of Pascal VOC: the bits of the index, three at a time, from the highest bit of each channel down. */
export function vocPalette(count: number): Rgb[] {
  return Array.from({ length: count }, (_, index) => {
    const channel = (c: number) =>
      Array.from({ length: 8 }, (_, j) => ((index >> (3 * j + c)) & 1) << (7 - j)).reduce((a, b) => a | b)
    return [channel(0), channel(1), channel(2)]
  })
}

const pascal = list(`
  background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse,
  motorbike, person, potted plant, sheep, sofa, train, tv/monitor`)

const cityscapes = list(`
  road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
  rider, car, truck, bus, train, motorcycle, bicycle`)

const coco = list(`
  void, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
  stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack,
  umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
  skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich,
  orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
  laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
  scissors, teddy bear, hair drier, toothbrush`)

const ade20k = list(`
  wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
  table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
  armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
  chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway,
  case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
  book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine,
  hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane,
  dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship,
  fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag,
  minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher,
  screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
  monitor, bulletin board, shower, radiator, glass, clock, flag`)

const cityscapesColors = colors(`
  804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64
  005064 0000e6 770b20`)

const ade20kColors = colors(`
  787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 ff0652
  8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0
  ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff
  8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff
  00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff
  ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff
  00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070
  5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500
  0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff
  b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff`)

/**
 * Classes by the name in `dataset`. Names are those of the PrevMatch and UniMatch code; COCO's are class 0 for all that
 * is no object, and the 80 objects. Palettes: VOC's colour map for Pascal and COCO, the official ones of Cityscapes and
 * of the ADE20K scene parsing benchmark.
 */
const classSets: Readonly<Record<string, ClassSet>> = {
  pascal: { names: pascal, palette: vocPalette(pascal.length) },
  cityscapes: { names: cityscapes, palette: cityscapesColors },
  coco: { names: coco, palette: vocPalette(coco.length) },
  ade20k: { names: ade20k, palette: ade20kColors },
}

/** The classes of a data set that is known by name. */
export function knownClasses(dataset: string): ClassSet | undefined {
  return Object.hasOwn(classSets, dataset) ? classSets[dataset] : undefined
}

/** The colours to show classes in: the configured ones, those of the data set, or VOC's colour map. */
export function paletteOf(config: {
  readonly dataset: string
  readonly nclass: number
  readonly palette?: readonly Rgb[] | undefined
}): readonly Rgb[] {
  if (config.palette) return config.palette
  const known = knownClasses(config.dataset)
  return known?.palette.length === config.nclass ? known.palette : vocPalette(config.nclass)
}
