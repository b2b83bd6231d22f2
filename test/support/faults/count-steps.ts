import { Trainer } from '#dist/train/trainer/trainer.js'

/**
 * For modules that are loaded with `node --import` before a command: it then runs as a user starts it, and `fault` happens
 * on the way.
 *
 * @param at the step, from 1, in which it happens
 */
export function during(at: number, fault: (trainer: Trainer) => void): void {
  const { submit } = Trainer.prototype
  let steps = 0
  Trainer.prototype.submit = async function (...args) {
    const submitted = await submit.apply(this, args)
    // Its results are waited for later.
    if (++steps === at) fault(this)
    return submitted
  }
}
