/** What one step computed. */
export interface StepResult {
  /** `total_loss`, then the metrics of the method that mean something in this step, and its further numbers. */
  readonly metrics: Readonly<Record<string, number>>
  /** In half precision: what the loss was multiplied by, and the steps that were skipped since the training began. */
  readonly loss_scale?: number
  readonly skipped_steps?: number
  /** Learning rates of the backbone and of everything else. */
  readonly lr_used: readonly [number, number]
  /** Whether the batch had no labeled pixel that counts: its labeled loss is 0. */
  readonly withoutLabels: boolean
  /** Weights and statistics that hold NaN or an infinity after the step: so did their gradients, or what was summed up. */
  readonly nonFinite: readonly string[]
}

/** A step that the device has been given. */
export interface SubmittedStep {
  /** Steps of the training up to it, with it. */
  readonly iteration: number
  /** What it computed, once that is there. */
  readonly result: Promise<StepResult>
}
