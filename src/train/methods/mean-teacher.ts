import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import type { Variable } from '../../engine/store.js'
import { where } from '../../kernels/pointwise.js'
import { movingAverage } from '../../kernels/update.js'
import type { SegmentationModel } from '../../models/segmentation.js'

/**
 * Share of itself that a mean teacher keeps behind step `step` of its training, from 0: none behind the first one, then
 * 1 − 1 / (step + 1), up to `most`.
 */
export const meanTeacherDecay = (step: number, most: number): number => Math.min(1 - 1 / (step + 1), most)

/**
 * Within the step's trace: moves variables of a teacher towards those of the student by an exponential moving average.
 * @param averaged those of the teacher; the student has others of the same names and shapes
 * @param decay a scalar, the share that they keep of themselves
 * @param skipped a scalar that is not 0 where they stay as they are; absent where they always move
 */
export function updateMeanTeacher(
  averaged: readonly Variable[],
  student: SegmentationModel,
  decay: Tensor,
  skipped?: Tensor | undefined,
): void {
  for (const variable of averaged) {
    const before = read(variable)
    const average = movingAverage(before, read(student.store.get(variable.name)), decay)
    assign(variable, skipped ? where(skipped, before, average) : average)
  }
}
