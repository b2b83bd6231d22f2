// What files that can be read tell against a training with them. Each doubt is a line with a count and an example; the
// thresholds are set so that no image of CamVid, a data set of ordinary street scenes, raises one without reason.

import type { Sample } from './dataset.js'
import { directions } from './image-facts.js'
import type { Inspection } from './inspect-worker.js'
import type { LabelRules } from './label-rules.js'
import { showValue } from './labels.js'
import type { IndexReading, PaletteReading } from './palette-labels.js'

/** What can be doubted about a list of images, and what was done that is worth a note. */
export interface Findings {
  readonly doubts: readonly string[]
  readonly remarks: readonly string[]
}

/** Nearly every photograph has brighter parts than this, of 255; files of 12 bits in 16, and masks of classes, do not. */
const leastBright = 24
/** Less between dark and bright is one colour, with the noise of a camera or of JPEG. */
const leastRange = 8
/** Labels of objects that are ignored to this share teach little; the ignored rims and margins of data sets take less. */
const mostlyIgnored = 0.95
/** Of all labels together, which only scribbles, and values that were not meant to be ignored, exceed. */
const muchIgnored = 0.9
/**
 * Edges along the borders of labels that fit are about twice as strong as elsewhere (1.2 to 2.9 times in 468 images of
 * CamVid but for one whose label is of another moment), and 0.5 to 1.9 times after a turn, since scenes have a top and
 * sides that resemble each other. None of the 468 has both the following ratios.
 */
const fits = 1.4
const fitsBetter = 1.3
/**
 * Labels of other images fit no better than when they are mirrored, which keeps the horizon and the middle of a scene: the
 * median of the ratio is 1.5 in CamVid and 1.0 once its labels are shuffled.
 */
const unrelated = 1.1
const leastLabels = 5

/** The images that were seen to have something in common. */
class Group {
  private readonly ids: number[] = []

  constructor(private readonly samples: readonly Sample[]) {}

  add(id: number): void {
    this.ids.push(id)
  }

  get size(): number {
    return this.ids.length
  }

  /** A line where there is one: `3 images are dark, such as 1.jpg: remedy`. */
  line(what: (one: boolean) => string, remedy = '', file: 'image' | 'label' = 'image'): string[] {
    const [first] = this.ids
    if (first === undefined) return []
    const one = this.size === 1
    const sample = this.samples[first]
    const name = file === 'image' ? sample?.image : sample?.label
    const noun = `${file}${one ? '' : 's'}`
    return [`${this.size} ${noun} ${what(one)}, such as ${name}${remedy === '' ? '' : `: ${remedy}`}`]
  }
}

/** The images for which something holds. */
function group(samples: readonly Sample[], all: readonly Inspection[], holds: (one: Inspection) => boolean): Group {
  const found = new Group(samples)
  for (const inspection of all) if (holds(inspection)) found.add(inspection.id)
  return found
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

/** Share of a label's pixels that is ignored. */
function ignoredShare({ pixels }: Inspection): number {
  const total = sum(pixels ?? [])
  return total === 0 ? 0 : (pixels?.at(-1) ?? 0) / total
}

function doubtsOfImages(samples: readonly Sample[], all: readonly Inspection[]): string[] {
  const isDark = ({ facts }: Inspection) => facts !== null && facts.bright < leastBright
  const isFlat = ({ facts }: Inspection) => facts !== null && facts.bright - facts.dark < leastRange
  const dark = group(samples, all, isDark)
  const flat = group(samples, all, (one) => isFlat(one) && !isDark(one))
  const be = (one: boolean) => (one ? 'is' : 'are')
  return [
    ...dark.line(
      (one) => `${be(one)} almost black (99 % below ${leastBright} of 255)`,
      'stretch images of 12 bits in 16 to all 16; check that no masks are listed as images',
    ),
    ...flat.line((one) => `${be(one)} of nearly one colour`, 'there is nothing to see in them'),
  ]
}

function doubtsOfClasses(
  samples: readonly Sample[],
  all: readonly Inspection[],
  names: readonly string[],
  purpose: string,
): string[] {
  const counted = all.filter(({ pixels }) => pixels !== null)
  if (counted.length === 0) return []
  const totals = names.map((_, k) => sum(counted.map(({ pixels }) => pixels?.[k] ?? 0)))
  const shown = names.filter((_, k) => (totals[k] ?? 0) > 0)
  const ignored = sum(counted.map(({ pixels }) => pixels?.at(-1) ?? 0))
  const share = ignored / (ignored + sum(totals) || 1)
  const whole = group(samples, counted, (one) => ignoredShare(one) === 1)
  const mostly = group(samples, counted, (one) => ignoredShare(one) >= mostlyIgnored && ignoredShare(one) < 1)
  const check = 'check ignore_index, label_map and reduce_zero_label'
  const be = (one: boolean) => (one ? 'is' : 'are')
  return [
    ...(shown.length === 0 ? [`no pixel of any label counts, so there is nothing to ${purpose}: ${check}`] : []),
    ...(shown.length === 1 ? [`all labels show one class alone, ${shown[0]}: there is nothing to tell apart`] : []),
    ...(shown.length > 0 && share >= muchIgnored
      ? [`${(100 * share).toFixed(1)} % of all pixels are ignored: ${check}`]
      : []),
    ...whole.line((one) => `${be(one)} ignored as a whole`, '', 'label'),
    ...mostly.line((one) => `${be(one)} ignored to ${100 * mostlyIgnored} % or more`, '', 'label'),
  ]
}

const highest = (values: readonly number[]): number => values.indexOf(Math.max(...values))

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

function doubtsOfEdges(samples: readonly Sample[], all: readonly Inspection[]): string[] {
  const seen = all.filter(({ facts }) => facts !== null && facts.edges.length > 0)
  const edgesOf = ({ facts }: Inspection) => facts?.edges ?? []
  const turned = directions.map((direction, i) => {
    const fitsSo = (one: Inspection) => {
      const [asIs = 0, best = 0] = [edgesOf(one)[0], edgesOf(one)[i]]
      return highest(edgesOf(one)) === i && best >= fits && best >= fitsBetter * asIs
    }
    const isOriented = seen.some((one) => one.orientation > 1 && fitsSo(one))
    return { direction, found: group(samples, seen, fitsSo), isOriented }
  })
  const lines = turned.flatMap(({ direction, found, isOriented }) =>
    found.line(
      (one) =>
        `${one ? 'follows' : 'follow'} the edges of ${one ? 'its image' : 'their images'} only when ${direction.name}`,
      isOriented
        ? 'images carry an EXIF orientation; exif_orientation says whether labels follow the stored pixels'
        : 'check how the labels were made',
      'label',
    ),
  )
  const asIs = median(seen.map((one) => edgesOf(one)[0] ?? 0))
  const beside = median(seen.map((one) => (edgesOf(one)[0] ?? 0) / (edgesOf(one)[1] || 1)))
  const isExplained = sum(turned.map(({ found }) => found.size)) > seen.length / 4
  if (seen.length < leastLabels || asIs >= fits || beside >= unrelated || isExplained) return lines
  const remedy = 'check which label belongs to which image'
  return [
    ...lines,
    `the borders of the ${seen.length} labels have nothing to do with the edges of their images: ${remedy}`,
  ]
}

/** `index 2 is #000000, class 0 a by colour and class 2 c by index`. */
function bothReadings(
  { index, color, byIndex, byColor }: IndexReading,
  names: readonly string[],
  rules: LabelRules,
): string {
  const show = (label: number) =>
    label === rules.ignoreIndex ? 'ignored' : label < 0 ? 'no class' : `class ${label} ${names[label]}`
  const shown = color < 0 ? 'beyond the palette' : showValue(color, true)
  return `index ${index} is ${shown}, ${show(byColor)} by colour and ${show(byIndex)} by index`
}

function findingsOnPalettes(
  samples: readonly Sample[],
  all: readonly Inspection[],
  names: readonly string[],
  rules: LabelRules,
): Findings {
  const differing = (wanted: (by: PaletteReading['by']) => boolean) =>
    all.filter(({ palette }) => palette !== null && palette.differing.length > 0 && wanted(palette.by))
  const lines = (found: readonly Inspection[], taken: string) => {
    const [first] = found
    const reading = first?.palette?.differing[0]
    if (!first || !reading) return []
    const number = found.length === 1 ? '1 label has' : `${found.length} labels have`
    const file = samples[first.id]?.label
    return [`${number} a palette ${taken}, such as ${file}: ${bothReadings(reading, names, rules)}`]
  }
  if (!rules.colors) {
    const other = differing((by) => by !== 'index')
    return {
      doubts: lines(other, "in the colours of other classes; indices count, as no 'palette' is configured"),
      remarks: [],
    }
  }
  return {
    doubts: lines(
      differing((by) => by === 'index'),
      'without the configured colours; indices count',
    ),
    remarks: lines(
      differing((by) => by !== 'index'),
      'in another order than the classes; colours count',
    ),
  }
}

function findingsOnOrientation(samples: readonly Sample[], all: readonly Inspection[], rules: LabelRules): Findings {
  const carrying = all.filter(({ orientation }) => orientation > 1)
  const stored = group(samples, carrying, ({ fitsStored }) => fitsStored)
  const others = group(samples, carrying, ({ fitsStored }) => !fitsStored)
  const carry = (one: boolean) => `${one ? 'carries' : 'carry'} an EXIF orientation`
  if (rules.orientation === 'stored') {
    return { doubts: [], remarks: others.line((one) => `${carry(one)}, which is not applied`) }
  }
  const applied = others.line((one) => `${carry(one)}, which is applied`)
  const taken = stored.line(
    (one) => `${carry(one)} and ${one ? 'is' : 'are'} taken as stored, as only so the label fits`,
    'if all masks follow the stored pixels, set exif_orientation: stored',
  )
  return stored.size > 0 && others.size > 0
    ? { doubts: taken, remarks: applied }
    : { doubts: [], remarks: [...applied, ...taken] }
}

/**
 * What is to be said of images that were looked at.
 * @param purpose what the labels are for: to learn from, or to validate on
 */
export function findingsOn(
  samples: readonly Sample[],
  all: readonly Inspection[],
  names: readonly string[],
  rules: LabelRules,
  purpose: 'learn from' | 'validate on',
): Findings {
  const palettes = findingsOnPalettes(samples, all, names, rules)
  const orientation = findingsOnOrientation(samples, all, rules)
  return {
    doubts: [
      ...doubtsOfImages(samples, all),
      ...doubtsOfClasses(samples, all, names, purpose),
      ...doubtsOfEdges(samples, all),
      ...palettes.doubts,
      ...orientation.doubts,
    ],
    remarks: [...palettes.remarks, ...orientation.remarks],
  }
}
