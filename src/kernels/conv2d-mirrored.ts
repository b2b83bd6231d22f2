// The kernels that read mirrors beside the others: where the rule prefers one it comes first, else last.
import type { AdapterTraits } from '../engine/adapter.js'
import type { Candidate } from '../engine/kernel.js'
import type { ConvGeometry, ConvKind, ConvTensors } from './conv2d-geometry.js'
import { convNarrow, weightGradNarrow } from './conv2d-narrow.js'
import { convPanel, weightGradPanel, withMirrored } from './conv2d-panels.js'
import { convWinograd, weightGradWinograd } from './conv2d-winograd.js'
import type { Epilogue } from './slice-sums.js'

/** Of a convolution or its input gradient. */
export function withMirroredConv(
  kind: ConvKind,
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
  epilogue: Epilogue | undefined,
  tiles: readonly Candidate[],
): Candidate[] {
  const panels = withMirrored(convPanel(kind, g, tensors, adapter, epilogue), tiles)
  const others = withMirrored(convNarrow(kind, g, tensors, adapter, epilogue), panels)
  return withMirrored(convWinograd(kind, g, tensors, adapter, epilogue), others)
}

/** Of a weight gradient. */
export function withMirroredWeightGrad(
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
  epilogue: Epilogue | undefined,
  tiles: readonly Candidate[],
): Candidate[] {
  const panels = withMirrored(weightGradPanel(g, tensors, adapter, epilogue), tiles)
  const others = withMirrored(weightGradNarrow(g, tensors, adapter, epilogue), panels)
  return withMirrored(weightGradWinograd(g, tensors, adapter, epilogue), others)
}
