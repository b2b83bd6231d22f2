import type { Sample } from './dataset.js'
import { findingsOn } from './doubts.js'
import type { Inspection } from './inspect-worker.js'
import type { LabelRules } from './label-rules.js'
import { explainInvalid, showValue } from './labels.js'

/** A stored value that stands for no class, over all labels. */
export interface InvalidValueCount {
  readonly value: string
  readonly images: number
  readonly pixels: number
  /** Where it occurs first. */
  readonly file: string
  readonly x: number
  readonly y: number
  readonly remedy: string
}

/** What a list of images holds. */
export interface DataReport {
  readonly images: number
  /** Labels whose pixels are counted below. */
  readonly labels: number
  /** Sizes of the images, the most frequent first. */
  readonly sizes: readonly { readonly width: number; readonly height: number; readonly images: number }[]
  /** Per class: share of the pixels that are not ignored, and the number of images that show it. */
  readonly classes: readonly { readonly name: string; readonly share: number; readonly images: number }[]
  /** Share of all pixels that are ignored, and the number of labels in which every pixel is. */
  readonly ignored: { readonly share: number; readonly whole: number }
  readonly invalidValues: readonly InvalidValueCount[]
  /** Files that cannot be used, a line each. */
  readonly problems: readonly string[]
  /** What may keep a model from learning, although every file can be read, a line each. */
  readonly doubts: readonly string[]
  /** What may be meant as it is, a line each. */
  readonly remarks: readonly string[]
}

/** What is in a list. */
export type ListName = 'labeled' | 'unlabeled' | 'validation'

/** What is counted, without conclusions. */
type Counts = Omit<DataReport, 'doubts' | 'remarks'>

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

/** Remarks on values that point to a way of storing labels that the configuration does not name. */
function guesses(invalid: readonly InvalidValueCount[], report: Counts, rules: LabelRules): string[] {
  const { nclass, ignoreIndex, values, reduceZero } = rules
  const present = report.classes.map(({ images }, i) => (images > 0 ? i : -1)).filter((i) => i >= 0)
  if (values || reduceZero || report.labels + invalid.length === 0) return []
  if (invalid.length === 0 && nclass === 2 && present.length === 1 && present[0] === 0 && report.ignored.share > 0) {
    return [
      `the labels hold 0 and ${ignoreIndex} alone: if they are black and white, give label_map: {0: 0, ${ignoreIndex}: 1}`,
    ]
  }
  if (invalid.length === 1 && invalid[0]?.value === String(nclass)) {
    return [`the only value too high is ${nclass}: if the labels count from 1, set reduce_zero_label: true`]
  }
  return []
}

/** Sums up inspections of a list. */
export function reportOf(
  samples: readonly Sample[],
  inspections: readonly Inspection[],
  names: readonly string[],
  rules: LabelRules,
  list: ListName,
): DataReport {
  const sizes = new Map<string, { width: number; height: number; images: number }>()
  const pixels = new Array<number>(names.length + 1).fill(0)
  const shown = new Array<number>(names.length).fill(0)
  const invalid = new Map<string, { -readonly [Key in keyof InvalidValueCount]: InvalidValueCount[Key] }>()
  let labels = 0
  let whole = 0
  for (const { id, size, pixels: counts, invalidValues: found } of inspections) {
    if (size) {
      const key = `${size.width}x${size.height}`
      const entry = sizes.get(key)
      if (entry) entry.images++
      else sizes.set(key, { ...size, images: 1 })
    }
    for (const { value, colored, indexed, pixels: count, x, y } of found) {
      const key = showValue(value, colored)
      const entry = invalid.get(key)
      if (entry) {
        entry.images++
        entry.pixels += count
      } else {
        const remedy = explainInvalid(value, colored, rules, indexed)
        invalid.set(key, { value: key, images: 1, pixels: count, file: samples[id]?.label ?? '', x, y, remedy })
      }
    }
    if (!counts) continue
    labels++
    for (const [k, count] of counts.entries()) {
      pixels[k] = (pixels[k] as number) + count
      if (count > 0 && k < shown.length) shown[k] = (shown[k] as number) + 1
    }
    if (sum(counts.slice(0, -1)) === 0) whole++
  }
  const ignored = pixels.pop() as number
  const counted = sum(pixels)
  const report = {
    images: samples.length,
    labels,
    sizes: [...sizes.values()].sort((a, b) => b.images - a.images || a.width * a.height - b.width * b.height),
    classes:
      list !== 'unlabeled'
        ? names.map((name, k) => ({ name, share: (pixels[k] as number) / (counted || 1), images: shown[k] as number }))
        : [],
    ignored: { share: ignored / (counted + ignored || 1), whole },
    invalidValues: [...invalid.values()].sort((a, b) => b.images - a.images),
    problems: inspections.flatMap(({ problems }) => problems),
  }
  const purpose = list === 'validation' ? 'validate on' : 'learn from'
  const { doubts, remarks } = findingsOn(samples, inspections, names, rules, purpose)
  return { ...report, doubts, remarks: [...remarks, ...remarksOn(samples, report, rules)] }
}

function remarksOn(samples: readonly Sample[], report: Counts, rules: LabelRules): string[] {
  const remarks = guesses(report.invalidValues, report, rules)
  const missing = report.classes.filter(({ images }) => images === 0).map(({ name }) => name)
  if (report.labels > 0 && missing.length > 0) remarks.push(`never shown: ${missing.join(', ')}`)
  const twice = samples.length - new Set(samples.map(({ image }) => image)).size
  if (twice > 0) remarks.push(`${twice} lines name an image again`)
  return remarks
}

const percent = (share: number): string => `${(100 * share).toFixed(share > 0 && share < 0.001 ? 4 : 2)} %`

/** Lines that show a report. At most `most` files and values of a kind are named. */
export function showReport(title: string, report: DataReport, most = 20): string[] {
  const { images, labels, sizes, classes, ignored, invalidValues: invalid, problems, doubts, remarks } = report
  const lines = [`${title}: ${images} images${classes.length > 0 ? `, ${labels} usable labels` : ''}`]
  const some = sizes.slice(0, 5).map(({ width, height, images: n }) => `${width}x${height} (${n})`)
  if (sizes.length > 0) {
    const sides = sizes.flatMap(({ width, height }) => [width, height])
    const rest = sizes.length > 5 ? `, and ${sizes.length - 5} other sizes` : ''
    const range = sizes.length > 1 ? `; sides of ${Math.min(...sides)} to ${Math.max(...sides)} pixels` : ''
    lines.push(`  sizes: ${some.join(', ')}${rest}${range}`)
  }
  if (labels > 0) {
    const width = Math.max(7, ...classes.map(({ name }) => name.length)) + 6
    lines.push(`  ${'class'.padEnd(width)}${'pixels'.padStart(11)}${'images'.padStart(9)}`)
    for (const [k, { name, share, images: n }] of classes.entries()) {
      const label = `${String(k).padStart(3)}  ${name}`
      lines.push(`  ${label.padEnd(width)}${percent(share).padStart(11)}${String(n).padStart(9)}`)
    }
    lines.push(`  ${'     ignored'.padEnd(width)}${percent(ignored.share).padStart(11)}  of all pixels`)
  }
  const more = (count: number, what: string) => (count > most ? [`  ... and ${count - most} more ${what}`] : [])
  for (const { value, images: n, pixels, file, x, y, remedy } of invalid.slice(0, most)) {
    lines.push(
      `  WRONG: value ${value} in ${n} labels (${pixels} pixels), first in ${file} at x=${x}, y=${y}: ${remedy}`,
    )
  }
  lines.push(...more(invalid.length, 'values'))
  for (const problem of problems.slice(0, most)) lines.push(`  WRONG: ${problem}`)
  lines.push(...more(problems.length, 'files'))
  for (const remark of [...doubts, ...remarks]) lines.push(`  note: ${remark}`)
  return lines
}
