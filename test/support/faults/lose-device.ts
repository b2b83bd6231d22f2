// The GPU device goes away in the fifth step.
import { during } from './count-steps.js'

during(5, ({ model }) => model.store.device.gpu.destroy())
