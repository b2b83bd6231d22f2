import type { Tensor } from '#dist/engine/ir.js'
import type { Shape } from '#dist/engine/shape.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation, toGray } from '#dist/kernels/color.js'
import { body, constant, type Family, family, normal, uniform } from './case.js'
import type { Values } from './reference/index.js'
import * as reference from './reference/index.js'

interface ColorCase {
  readonly shape: Shape
  readonly factor: number
  /** Values of 0 to 1 rather than normalised ones. */
  readonly inRange?: true
}

const colorFamily = (
  name: string,
  run: (x: Tensor, factor: Tensor) => Tensor,
  compare: (x: Values, factor: Values) => Values,
  [less, more]: readonly [number, number],
  terms: (shape: Shape) => number = () => 1,
): Family =>
  family(
    name,
    ({ shape, factor, inRange }: ColorCase) =>
      body({
        inputs: { x: inRange ? uniform(shape, 0, 1) : normal(shape), factor: constant([], factor) },
        run: (t) => ({ out: run(t.x, t.factor) }),
        reference: (v) => ({ out: compare(v.x, v.factor) }),
        terms: terms(shape),
      }),
    {
      less: { shape: [2, 5, 7, 3], factor: less },
      more: { shape: [2, 5, 7, 3], factor: more },
      'in range': { shape: [3, 8, 8, 3], factor: more, inRange: true },
      'one pixel': { shape: [1, 1, 1, 3], factor: less },
      long: { shape: [1, 67, 65, 3], factor: more },
    },
    ({ crop, batch }): Record<string, ColorCase> => ({ images: { shape: [batch, crop, crop, 3], factor: more } }),
  )

const grayFamily = family(
  'toGray',
  (shape: Shape) =>
    body({
      inputs: { x: normal(shape) },
      run: (t) => ({ out: toGray(t.x) }),
      reference: (v) => ({ out: reference.toGray(v.x) }),
    }),
  { odd: [2, 5, 7, 3], long: [1, 67, 65, 3] },
)

export const colorFamilies: Family[] = [
  colorFamily('adjustBrightness', adjustBrightness, reference.adjustBrightness, [0.5, 1.3]),
  colorFamily('adjustContrast', adjustContrast, reference.adjustContrast, [0.5, 1.3], ([, height = 1, width = 1]) => {
    return height * width
  }),
  colorFamily('adjustSaturation', adjustSaturation, reference.adjustSaturation, [0.5, 1.3]),
  colorFamily('adjustHue', adjustHue, reference.adjustHue, [-0.2, 0.13]),
  grayFamily,
]
