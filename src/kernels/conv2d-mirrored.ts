// The kernels that read mirrors beside the others: where the rule prefers one it comes first, else last.
import type { AdapterTraits } from '../engine/adapter.js'
import type { Candidate } from '../engine/kernel.js'
import type { ConvGeometry, ConvKind, ConvTensors } from './conv2d-geometry.js'
import { convNarrow, weightGradNarrow } from './conv2d-narrow.js'
import { convPanel, weightGradPanel, withMirrored } from './conv2d-panels.js'
import { convWinograd, weightGradWinograd } from './conv2d-winograd.js'
import type { Epilogue } from './slice-sums.js'

const convKernels = [convPanel, convNarrow, convWinograd]
const weightGradKernels = [weightGradPanel, weightGradNarrow, weightGradWinograd]

/** Of a convolution or its input gradient. */
export const withMirroredConv = (
  tiles: readonly Candidate[],
  ...call: [kind: ConvKind, g: ConvGeometry, tensors: ConvTensors, adapter: AdapterTraits, epilogue?: Epilogue]
): readonly Candidate[] =>
  withMirrored(
    convKernels.map((kernel) => kernel(...call)),
    tiles,
  )

/** Of a weight gradient. */
export const withMirroredWeightGrad = (
  tiles: readonly Candidate[],
  ...call: [g: ConvGeometry, tensors: ConvTensors, adapter: AdapterTraits, epilogue?: Epilogue]
): readonly Candidate[] =>
  withMirrored(
    weightGradKernels.map((kernel) => kernel(...call)),
    tiles,
  )
