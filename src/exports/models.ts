/**
 * The networks of atrous: what `atrous/models` exports.
 *
 * `chooseModel` makes a `ModelSpec` of the keys of a configuration, `createModel` declares its variables in a store, and
 * `logits` calls it within a trace. `stateDict` and `loadStateDict` convert to and from PyTorch's names and layouts.
 */
export {
  architectureOf,
  architectures,
  backbones,
  chooseModel,
  createModel,
  defaultArchitecture,
  type InferredModel,
  inferModel,
  type ModelChoice,
  type ModelSpec,
} from '../models/index.js'
export type { InitialRandom, Mode } from '../models/layers.js'
export {
  type Architecture,
  type Backbone,
  type BackboneFamily,
  type BackboneNames,
  type DropoutLevel,
  ImageTooSmallError,
  type InferredConfig,
  logits,
  lowLogits,
  type ModelConfig,
  type ModelInput,
  type ParameterGroup,
  type PretrainedRules,
  parametersOf,
  type SegmentationModel,
  type Stages,
  type StateShapes,
} from '../models/segmentation.js'
export { checkStateDict, loadStateDict, type StateTensor, stateDict } from '../models/weights.js'
