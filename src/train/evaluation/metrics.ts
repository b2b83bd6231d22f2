/** Result of an evaluation; per class unless it says otherwise, shares in percent. */
export interface Scores {
  /** Pixels of the class that were found. */
  readonly intersection: number[]
  /** Pixels of the class or taken for it. */
  readonly union: number[]
  /** Pixels of the class. */
  readonly target: number[]
  /** Intersection over union; 0 for a class that occurs nowhere. */
  readonly iou: number[]
  /** Share of the class's pixels that were found; 0 where it has none. */
  readonly accuracy: number[]
  /** Share of the class in all pixels that count. */
  readonly share: number[]
  /** Mean IoU over all classes, as the PrevMatch code computes it: those that occur nowhere count 0. */
  readonly miou: number
  /** Mean IoU over the classes that occur in ground truth or prediction. */
  readonly miouPresent: number
  /** How many classes occur in ground truth or prediction. */
  readonly present: number
  /** Share of all pixels that were classified right. */
  readonly pixelAccuracy: number
}

const total = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0)

/** Scores of a confusion matrix [K, K] whose rows are the true classes. */
export function scoresOf(counts: ArrayLike<number>, nclass: number): Scores {
  const at = (target: number, predicted: number) => counts[target * nclass + predicted] ?? 0
  const classes = Array.from({ length: nclass }, (_, k) => k)
  const intersection = classes.map((k) => at(k, k))
  const target = classes.map((k) => total(classes.map((j) => at(k, j))))
  const union = classes.map((k) => (target[k] ?? 0) + total(classes.map((j) => at(j, k))) - at(k, k))
  const share = (parts: readonly number[], of: readonly number[]) =>
    parts.map((part, k) => (100 * part) / ((of[k] ?? 0) + 1e-10))
  const iou = share(intersection, union)
  const present = union.filter((pixels) => pixels > 0).length
  const pixels = total(target)
  return {
    intersection,
    union,
    target,
    iou,
    accuracy: share(intersection, target),
    share: target.map((count) => (100 * count) / Math.max(1, pixels)),
    miou: total(iou) / nclass,
    miouPresent: total(iou) / Math.max(1, present),
    present,
    pixelAccuracy: (100 * total(intersection)) / Math.max(1, pixels),
  }
}
