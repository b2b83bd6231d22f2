import { z } from 'zod'
import {
  inferResidual,
  readsCoefficients,
  residual50,
  residual101,
  residualKeys,
  residualLayers,
  residualStages,
  resnet,
} from './resnet.js'
import type { BackboneFamily } from './segmentation.js'

const inputChannels = 64

/**
 * Residual networks that read DCT coefficients in place of a stem, whose size the coefficients have already: layer1 reads 64
 * channels (Xu et al., "Learning in the Frequency Domain", 2020, as the code of Diverse Co-training has them).
 */
export const resnetDct: BackboneFamily = {
  inputChannels,
  input: 'coefficients',
  names: resnet.names,
  keys: residualKeys,
  presets: { resnet50_dct: residual50, resnet101_dct: residual101 },
  stages: residualStages,
  create: (at, config) => residualLayers(at, z.object(residualKeys).parse(config), inputChannels),
  inferConfig: (state) => inferResidual(readsCoefficients(state) ? state : new Map()),
}
