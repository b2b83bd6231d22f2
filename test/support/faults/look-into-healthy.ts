// Looks into the fifth step for what is not finite, though all is, and ends.
import { Trainer } from '#dist/train/trainer/trainer.js'

const { step } = Trainer.prototype
let steps = 0
Trainer.prototype.step = async function (...args) {
  const result = await step.apply(this, args)
  if (++steps < 5) return result
  console.log(`found: ${JSON.stringify(await this.firstNonFinite())}`)
  process.exit()
}
