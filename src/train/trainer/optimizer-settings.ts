import { z } from 'zod'

const share = z.number().min(0).lt(1)

const optimizer = z.strictObject({
  name: z
    .enum(['sgd', 'adamw'])
    .default('sgd')
    .describe('SGD with momentum 0.9, or Adam with decoupled weight decay (AdamW).'),
  betas: z
    .tuple([share, share])
    .default([0.9, 0.999])
    .describe('AdamW: what a step keeps of the averages of gradients, and of their squares.'),
  eps: z.number().gt(0).default(1e-8).describe('AdamW: added to the root of the average of squares.'),
  norm_decay: z
    .number()
    .min(0)
    .optional()
    .describe("Weight decay of the backbone's normalisation layers. Default: `weight_decay`."),
})

const schedule = z.strictObject({
  power: z.number().gt(0).default(0.9).describe('Power of the polynomial by which the learning rate falls.'),
  warmup_iterations: z
    .int()
    .min(0)
    .default(0)
    .describe('So many iterations at the start rise linearly to the learning rate, in place of the polynomial.'),
  warmup_ratio: z.number().min(0).max(1).default(1e-6).describe('Share of the learning rate at which they begin.'),
  iterations: z
    .int()
    .min(1)
    .optional()
    .describe('Iterations after which the rate falls no more. Default: all of the training.'),
  set: z
    .enum(['before', 'after'])
    .default('after')
    .describe(
      'Whether the rate is set before each step, or after it, as in the PrevMatch code: the first two are then equal.',
    ),
})

/** The section `optimizer` of a configuration. */
export type OptimizerSection = z.infer<typeof optimizer>

/** The section `lr_schedule` of a configuration. */
export type ScheduleSection = z.infer<typeof schedule>

/** Keys of the configuration that say how parameters follow their gradients. */
export const updateKeys = {
  // Checkpoints of runs without these sections resume as they began: what is absent is no change of settings.
  optimizer: z
    .preprocess((value) => (typeof value === 'string' ? { name: value } : value), optimizer)
    .optional()
    .describe('How parameters follow their gradients; its name alone will do. Default: `sgd`.'),
  lr_schedule: schedule
    .optional()
    .describe('How the learning rate changes. Default: that of the method, for most of them as the keys here.'),
}
