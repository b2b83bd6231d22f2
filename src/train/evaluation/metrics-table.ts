import type { Scores } from './metrics.js'

const columns = ['IoU', 'accuracy', 'pixels'] as const
const width = 10

/** A table of a line per class, in percent, and the means below it. Classes that occur nowhere show `-`. */
export function scoreTable(scores: Scores, classNames: readonly string[]): string[] {
  const names = classNames.map((name, k) => name || `${k}`)
  const first = Math.max(...names.map((name) => name.length), 'class'.length)
  const row = (name: string, cells: readonly string[]) =>
    name.padEnd(first) + cells.map((cell) => cell.padStart(width)).join('')
  const percent = (value: number | undefined, known: boolean) => (known ? (value ?? 0).toFixed(2) : '-')
  const rule = '-'.repeat(first + columns.length * width)
  const lines = names.map((name, k) =>
    row(name, [
      percent(scores.iou[k], (scores.union[k] ?? 0) > 0),
      percent(scores.accuracy[k], (scores.target[k] ?? 0) > 0),
      percent(scores.share[k], true),
    ]),
  )
  return [row('class', columns), rule, ...lines, rule, ...meanLines(scores)]
}

function meanLines({ miou, miouPresent, present, iou, accuracy, target, pixelAccuracy }: Scores): string[] {
  const inTruth = target.filter((pixels) => pixels > 0).length
  const meanAccuracy = accuracy.reduce((sum, value) => sum + value, 0) / Math.max(1, inTruth)
  return [
    `mIoU ${miou.toFixed(2)} over all ${iou.length} classes, absent ones count 0 (as the PrevMatch code has it)`,
    `mIoU ${miouPresent.toFixed(2)} over the ${present} classes that occur in ground truth or prediction`,
    `mean accuracy ${meanAccuracy.toFixed(2)}; accuracy of all pixels ${pixelAccuracy.toFixed(2)}`,
  ]
}
