import { z } from 'zod'
import type { Store } from '../engine/store.js'
import { deepLabV3Plus } from './deeplabv3plus.js'
import { dpt } from './dpt.js'
import type { InitialRandom } from './layers.js'
import { segformer } from './segformer.js'
import type {
  Architecture,
  BackboneNames,
  ModelConfig,
  ModelInput,
  SegmentationModel,
  StateShapes,
} from './segmentation.js'

const rows: readonly Architecture[] = [deepLabV3Plus, segformer, dpt]

/** All architectures by their names. */
export const architectures: ReadonlyMap<string, Architecture> = new Map(rows.map((row) => [row.name, row]))

/** The architecture of checkpoints that name none. */
export const defaultArchitecture = deepLabV3Plus

/** Names of the backbones, over all architectures. */
export const backbones: readonly string[] = rows.flatMap(({ presets }) => Object.keys(presets))

/** Names of the stages whose activations can be computed again, over all architectures. */
export const stages: readonly string[] = [...new Set(rows.flatMap((row) => row.stages))]

/** How the tensors of backbones are found in a state_dict, over all architectures. */
export const backboneNames: readonly BackboneNames[] = rows.flatMap((row) => row.backboneNames)

/** Section `model` of a configuration: what differs from the usual widths and depths of its backbone. */
export const modelKeys = z
  .strictObject({
    architecture: z.enum([...architectures.keys()]).describe('The same as its name in place of the section.'),
    backbone: z.enum(backbones).describe('The same as the key `backbone`.'),
    ...Object.assign({}, ...rows.map(({ keys }) => keys)),
  } as z.ZodRawShape)
  .partial()

/** A model to be made. */
export interface ModelSpec {
  readonly architecture: string
  readonly config: ModelConfig
}

/** What a configuration says of its model, under the keys that it has there. */
export interface ModelChoice {
  readonly nclass: number
  readonly backbone?: string | undefined
  readonly replace_stride_with_dilation?: readonly boolean[] | undefined
  readonly dilations?: readonly number[] | undefined
  readonly activation_checkpointing?: readonly string[] | undefined
  /** What differs from the backbone's usual widths and depths; it may name the `architecture`. */
  readonly model?: Partial<ModelConfig> | undefined
}

/** @throws Error for a name that is not in the table */
export function architectureOf(name: string): Architecture {
  const found = architectures.get(name)
  if (!found)
    throw new Error(`there is no architecture '${name}': choose one of ${[...architectures.keys()].join(', ')}`)
  return found
}

/**
 * The backbone that a configuration asks for.
 * @throws Error where there is none of that name, or it is none of the architecture that is asked for
 */
export function backboneOf({ backbone: given, model = {} }: Pick<ModelChoice, 'backbone' | 'model'>): string {
  const asked = model.architecture === undefined ? undefined : architectureOf(String(model.architecture))
  const own = model.backbone === undefined ? undefined : String(model.backbone)
  if (given !== undefined && own !== undefined && given !== own) {
    throw new Error(`'backbone' is ${given}, but 'model.backbone' is ${own}: leave one of them out`)
  }
  const name = own ?? given ?? (asked ?? defaultArchitecture).defaultBackbone
  const row = rows.find(({ presets }) => Object.hasOwn(presets, name))
  if (!row) throw new Error(`there is no backbone '${name}': choose one of ${backbones.join(', ')}`)
  if (!asked || asked === row) return name
  throw new Error(
    `the model ${asked.name} has no backbone '${name}': choose one of ${Object.keys(asked.presets).join(', ')}`,
  )
}

/** The widths and depths that a configuration asks for. `model` prevails over the other keys. */
export function chooseModel(choice: ModelChoice): ModelSpec {
  const { nclass, replace_stride_with_dilation, dilations, activation_checkpointing = [] } = choice
  const { architecture: _, backbone: _own, ...model } = choice.model ?? {}
  const backbone = backboneOf(choice)
  const row = rows.find(({ presets }) => Object.hasOwn(presets, backbone))
  const preset = row?.presets[backbone]
  if (!row || !preset) throw new Error(`unreachable: the backbone ${backbone} was found`)
  const given = { replace_stride_with_dilation, dilations }
  const concerning = Object.entries(given).filter(([key]) => Object.hasOwn(preset, key))
  const known = [...concerning, ...Object.entries(model)].filter(([, value]) => value !== undefined)
  const config = { ...preset, nclass, ...Object.fromEntries(known) }
  const { error } = row.schema.safeParse(config)
  if (error) throw new Error(`the section 'model' does not fit ${row.name} with ${backbone}: ${reasonOf(error)}`)
  const own = row.stagesOf(config)
  const unknown = activation_checkpointing.find((stage) => !own.includes(stage))
  if (unknown !== undefined) {
    throw new Error(`'activation_checkpointing' has ${unknown}, but the stages of ${backbone} are ${own.join(', ')}`)
  }
  return { architecture: row.name, config }
}

/** What a model reads. */
export const inputOf = ({ architecture, config }: ModelSpec): ModelInput =>
  architectureOf(architecture).inputOf?.(config) ?? 'rgb'

const reasonOf = ({ issues }: z.ZodError): string =>
  issues.map(({ path, message }) => [...(path.length > 0 ? [path.join('.')] : []), message].join(': ')).join('; ')

/** Declares a model's variables in an empty store; see `Architecture.create`. */
export const createModel = (
  store: Store,
  { architecture, config }: ModelSpec,
  random?: InitialRandom,
): SegmentationModel => architectureOf(architecture).create(store, config, random)

/** The model of a state_dict. */
export interface InferredModel extends ModelSpec {
  /** The part of its configuration that no tensor shows, such as dilations. */
  readonly geometry: object
  /** Whether that part was stated, rather than the usual one taken. */
  readonly hasGeometry: boolean
}

/**
 * The model that a state_dict is of: widths and depths from the shapes of its tensors, dilations and strides from what is
 * stated beside them, or else the usual ones. Undefined where it is not a whole model.
 */
export function inferModel(row: Architecture, state: StateShapes, stated: unknown): InferredModel | undefined {
  const { widths, geometry: usual } = row.inferConfig(state)
  const claims = typeof stated === 'object' && stated !== null ? Object.entries(stated) : []
  const geometry = Object.fromEntries(claims.filter(([key]) => Object.hasOwn(usual, key)))
  const architecture = row.name
  if (row.schema.safeParse({ ...widths, ...geometry }).success) {
    // What may be left out is as usual then.
    const whole = { ...usual, ...geometry }
    return { architecture, config: row.schema.parse({ ...widths, ...whole }), geometry: whole, hasGeometry: true }
  }
  const assumed = row.schema.safeParse({ ...widths, ...usual })
  return assumed.success ? { architecture, config: assumed.data, geometry: usual, hasGeometry: false } : undefined
}
