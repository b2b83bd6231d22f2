import { attentionFamilies } from './attention.js'
import type { Case, Family, Setting } from './case.js'
import { classificationFamilies } from './classification.js'
import { colorFamilies } from './color.js'
import { convTransposeFamilies } from './conv-transpose2d.js'
import { convFamilies } from './conv2d.js'
import { mapFamilies } from './maps.js'
import { matmulFamilies } from './matmul.js'
import { movementFamilies } from './movement.js'
import { pointwiseFamilies } from './pointwise.js'
import { reduceFamilies } from './reduce.js'
import { trainingFamilies } from './training.js'

/**
 * The table of every operator. Its rows drive the tests of values, gradients, kernels and optimisation
 * (test/kernels/ops.test.ts), and its bench shapes the bench (bench/bench.ts).
 */
const families: readonly Family[] = [
  ...pointwiseFamilies,
  ...reduceFamilies,
  ...movementFamilies,
  ...matmulFamilies,
  ...attentionFamilies,
  ...convFamilies,
  ...convTransposeFamilies,
  ...mapFamilies,
  ...classificationFamilies,
  ...trainingFamilies,
  ...colorFamilies,
]

/** All rows, on small shapes. */
export const cases: readonly Case[] = families.flatMap((family) => family.cases())

/** The operators at the shapes of DeepLabV3+. */
export const benchCases = (setting: Setting): Case[] => families.flatMap((family) => family.bench(setting))
