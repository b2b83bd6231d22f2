import { z } from 'zod'

/** A key of the configuration: between which factors of its size an image is resized before it is cropped. */
export const resizeFactors = z
  .tuple([z.number().gt(0), z.number().gt(0)])
  .refine(([from, to]) => from <= to, { error: 'expected the smaller factor first' })
  .default([0.5, 2])
  .describe('Smallest and largest factor.')
