// Looks into the fifth step for what is not finite, though all is, and ends.
import { Trainer } from '#dist/train/trainer/trainer.js'

const { submit } = Trainer.prototype
let steps = 0
Trainer.prototype.submit = async function (...args) {
  const submitted = await submit.apply(this, args)
  if (++steps < 5) return submitted
  await submitted.result
  console.log(`found: ${JSON.stringify(await this.firstNonFinite())}`)
  process.exit()
}
