import type { Program } from '#dist/engine/program.js'

/** The kernels of a program. What a GPU makes of a sum, parts and then their sum, counts as one. */
export const kernelsOf = ({ kernels }: Pick<Program, 'kernels'>): string[] =>
  kernels.filter((name) => name !== 'sum parts')
