import type { DataReport, ListName } from './checks.js'
import type { Sample } from './dataset.js'
import type { Inspection } from './inspect-worker.js'
import { shortenedEpoch } from './loader.js'

/** A list that was looked at. */
export interface CheckedList {
  readonly samples: readonly Sample[]
  readonly inspections: readonly Inspection[]
  readonly report: DataReport
}

type Lists = ReadonlyMap<ListName, CheckedList>

/** Images of the validation list that another list trains on: by name, or by their pixels. */
function alsoValidation(lists: Lists): string[] {
  const validation = lists.get('validation')
  if (!validation) return []
  const paths = new Set(validation.samples.map(({ image }) => image))
  const nameOf = ({ samples }: CheckedList, id: number) => samples[id]?.name ?? ''
  const byPixels = new Map(validation.inspections.map(({ facts, id }) => [facts?.hash, nameOf(validation, id)]))
  return (['labeled', 'unlabeled'] as const).flatMap((name) => {
    const list = lists.get(name)
    if (!list) return []
    const both = list.samples.filter(({ image }) => paths.has(image))
    const equal = list.inspections.filter(({ id, facts }) => {
      return facts !== null && byPixels.has(facts.hash) && !paths.has(list.samples[id]?.image ?? '')
    })
    const [first] = equal
    return [
      ...(both[0] ? [`${both.length} ${name} images are validation images, too, the first is ${both[0].name}`] : []),
      ...(first
        ? [
            `${equal.length} ${name} images have the pixels of validation images under other names, ` +
              `the first is ${nameOf(list, first.id)} (as ${byPixels.get(first.facts?.hash)})`,
          ]
        : []),
    ]
  })
}

/** Classes that validation asks for and no labeled image shows. */
function neverLearned(lists: Lists): string[] {
  const labeled = lists.get('labeled')?.report.classes
  const validation = lists.get('validation')?.report.classes
  if (!labeled || !validation) return []
  const names = validation.filter(({ images }, k) => images > 0 && labeled[k]?.images === 0).map(({ name }) => name)
  return names.length > 0 ? [`in validation labels, but in no labeled image: ${names.join(', ')}`] : []
}

/** Remarks on how lists go together, a line each. */
export function remarksOnLists(lists: Lists, batchSize: number): string[] {
  const count = (name: ListName) => lists.get(name)?.samples.length ?? 0
  const short = shortenedEpoch(count('labeled'), count('unlabeled'), batchSize)
  return [...alsoValidation(lists), ...neverLearned(lists), ...(short === undefined ? [] : [short])]
}
