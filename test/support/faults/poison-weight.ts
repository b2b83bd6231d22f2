// A weight becomes NaN behind the fourth step.
import { elements } from '#dist/engine/shape.js'
import { during } from './count-steps.js'

during(4, ({ model: { store } }) => {
  const { name, spec } = store.get('fuse.0.weight')
  store.write(name, new Float32Array(elements(spec.shape)).fill(Number.NaN))
})
