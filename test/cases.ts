import type { Case, Family, Setting } from './cases/case.js'
import { classificationFamilies } from './cases/classification.js'
import { convFamilies } from './cases/conv2d.js'
import { mapFamilies } from './cases/maps.js'
import { matmulFamilies } from './cases/matmul.js'
import { movementFamilies } from './cases/movement.js'
import { pointwiseFamilies } from './cases/pointwise.js'
import { reduceFamilies } from './cases/reduce.js'
import { trainingFamilies } from './cases/training.js'

/**
 * The table of every operator. Its rows drive the tests of values, gradients, kernels and optimisation
 * (test/ops.test.ts), and its bench shapes the bench (bench/bench.ts).
 */
const families: readonly Family[] = [
  ...pointwiseFamilies,
  ...reduceFamilies,
  ...movementFamilies,
  ...matmulFamilies,
  ...convFamilies,
  ...mapFamilies,
  ...classificationFamilies,
  ...trainingFamilies,
]

/** All rows, on small shapes. */
export const cases: readonly Case[] = families.flatMap((family) => family.cases())

/** The operators at the shapes of DeepLabV3+. */
export const benchCases = (setting: Setting): Case[] => families.flatMap((family) => family.bench(setting))
