import { architectureOf, backboneOf } from '../../models/index.js'
import { hexColor, knownClasses, type Rgb, showColor } from '../data/classes.js'
import { reasonOf, UserError } from '../error.js'
import { modelsOf } from '../methods/index.js'
import { show } from './explain.js'
import type { Config, Parsed } from './schema.js'

/** Number and names of the classes, each of which may follow from the other or from the name of the data set. */
function resolveClasses(config: Parsed, fail: (what: string) => UserError): { nclass: number; class_names: string[] } {
  const { dataset, class_names: names, classes } = config
  if (names && classes && names.join('\n') !== classes.join('\n')) {
    throw fail("'classes' and 'class_names' are two words for the same thing: leave one of them out")
  }
  const given = names ?? classes
  const key = names ? 'class_names' : 'classes'
  const known = knownClasses(dataset)?.names
  const nclass = config.nclass ?? given?.length ?? known?.length
  if (nclass === undefined) throw fail("'nclass' is missing: give it, or the names of the classes as 'classes'")
  if (nclass < 2 || nclass > 255) throw fail(`'${key}' has ${nclass} names: between 2 and 255 classes are possible`)
  if (given && given.length !== nclass) {
    throw fail(`'${key}' has ${given.length} names, but 'nclass' is ${nclass}: give one for each class`)
  }
  const fallback = known?.length === nclass ? known : Array.from({ length: nclass }, (_, i) => String(i))
  return { nclass, class_names: given ?? [...fallback] }
}

function checkPalette(palette: readonly Rgb[], nclass: number, fail: (what: string) => UserError): void {
  if (palette.length !== nclass) {
    throw fail(`'palette' has ${palette.length} colours, but there are ${nclass} classes: give one for each class`)
  }
  const shown = palette.map(showColor)
  const twice = shown.findIndex((one, i) => shown.indexOf(one) < i)
  if (twice >= 0) {
    const first = shown.indexOf(shown[twice] ?? '')
    throw fail(`'palette' gives the classes ${first} and ${twice} the same colour ${shown[twice]}: change one of them`)
  }
}

function checkLabelMap(
  map: Readonly<Record<string, number>>,
  nclass: number,
  ignore: number,
  fail: (what: string) => UserError,
): void {
  for (const [key, label] of Object.entries(map)) {
    if (!hexColor.test(key) && !(/^\d{1,5}$/.test(key) && Number(key) <= 65535)) {
      throw fail(`'label_map' has the key ${show(key)}: write a value of 0 to 65535, or a colour as '#rrggbb'`)
    }
    if (label >= nclass && label !== ignore) {
      throw fail(
        `'label_map' turns ${key} into ${label}, but the classes are 0 to ${nclass - 1} and ${ignore} is ignored`,
      )
    }
  }
}

/** The backbone, and a section `model` without the name of an architecture, which the backbone tells. */
function resolveNetwork(config: Parsed, nclass: number, fail: (what: string) => UserError) {
  const { architecture: _, backbone: _own, ...model } = config.model
  try {
    const backbone = backboneOf(config)
    const { crop_size: crop, activation_checkpointing: stages = [] } = config
    const models = modelsOf({ ...config, nclass, ignore_index: 255 })
    const rows = models.map((spec) => ({ ...spec, row: architectureOf(spec.architecture) }))
    const smallest = Math.max(...rows.map(({ row, config }) => row.smallestSide?.(config) ?? 1))
    if (crop < smallest) throw new Error(`'crop_size' is ${crop}, but the model needs ${smallest} at least`)
    for (const { row, config } of rows) {
      const multiple = row.multipleOf?.(config) ?? 1
      if (crop % multiple === 0) continue
      const nearest = multiple * Math.max(1, Math.round(crop / multiple))
      throw new Error(`'crop_size' is ${crop}, but ${backbone} needs a multiple of ${multiple}, such as ${nearest}`)
    }
    const all = [...new Set(rows.flatMap(({ row, config }) => row.stagesOf(config)))]
    const unknown = stages.find((stage) => !all.includes(stage))
    if (unknown !== undefined) {
      const whose = models.length > 1 ? 'the models' : backbone
      throw new Error(`'activation_checkpointing' has ${unknown}, but the stages of ${whose} are ${all.join(', ')}`)
    }
    return { backbone, model }
  } catch (error) {
    throw fail(reasonOf(error))
  }
}

/** Rules that concern more than one key. */
export function checkTogether({ classes, multi_grid, run, ...config }: Parsed, origin: string): Config {
  const fail = (what: string) => new UserError(`${origin}: ${what}`)
  const { nclass, class_names } = resolveClasses({ ...config, classes }, fail)
  const { criterion, palette, label_map: labelMap } = config
  const fromCriterion = criterion.kwargs.ignore_index
  const ignore = config.ignore_index ?? fromCriterion ?? 255
  if (fromCriterion !== undefined && fromCriterion !== ignore) {
    throw fail(`'ignore_index' is ${ignore}, but 'criterion.kwargs.ignore_index' is ${fromCriterion}: make them equal`)
  }
  if (ignore < nclass) {
    throw fail(`'ignore_index' is ${ignore}, which is one of the ${nclass} classes: choose one from ${nclass} to 255`)
  }
  if (config.model.nclass !== undefined && config.model.nclass !== nclass) {
    throw fail(`'model.nclass' is ${config.model.nclass}, but 'nclass' is ${nclass}: leave one of them out`)
  }
  const network = resolveNetwork(config, nclass, fail)
  if (palette) checkPalette(palette, nclass, fail)
  if (labelMap) checkLabelMap(labelMap, nclass, ignore, fail)
  if (labelMap && config.reduce_zero_label) {
    throw fail("'label_map' and 'reduce_zero_label' exclude each other: write 0 into the label_map, too")
  }
  const reduce_zero_label = config.reduce_zero_label ?? (config.dataset === 'ade20k' && !labelMap)
  if (criterion.name === 'OHEM') {
    for (const key of ['thresh', 'min_kept'] as const) {
      if (criterion.kwargs[key] === undefined) throw fail(`'criterion.kwargs.${key}' is missing: OHEM needs it`)
    }
  }
  const { batch_size: batch, micro_batch: images = batch } = config
  if (batch % images !== 0) {
    const divisors = Array.from({ length: batch }, (_, i) => i + 1).filter((count) => batch % count === 0)
    throw fail(`'micro_batch' is ${images}, which does not divide 'batch_size' ${batch}: use ${divisors.join(', ')}`)
  }
  const eval_mode = config.eval_mode ?? (config.dataset === 'cityscapes' ? 'sliding_window' : 'original')
  return { ...config, ...network, nclass, class_names, reduce_zero_label, ignore_index: ignore, eval_mode }
}
