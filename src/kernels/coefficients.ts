import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, floatBits, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, isFloat, spec } from '../engine/shape.js'
import { bySample } from './arrangement.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { packType } from './views.js'

/** Means of the coefficients of ImageNet's images, as Diverse Co-training's networks expect them (arXiv 2308.09281). */
export const coefficientMean: readonly number[] = [
  -88.397, 0.014242, 0.0034117, 0.0070792, 0.024295, 0.0048884, 0.011029, 0.4438, -0.014657, -0.0054878, -0.0074716,
  -0.0017573, -0.0019678, -0.0010014, -0.032971, -0.0069187, -0.0045815, -0.0032968, 0.00029935, -0.0010084, 0.027731,
  -0.0068864, -0.0043638, -0.0034875, -0.00074995, -0.00012685, 0.021127, 0.013356, 0.012893, 0.013848, 0.00080353,
  0.013728, 0.0056187, -0.0038503, -0.0016255, -0.00089914, -0.00060506, -0.00009618, -0.0060038, -0.001058,
  -0.00050092, 0.000041829, -0.00010169, -0.00034269, -58.709, -0.14975, 0.015083, 0.13488, -0.0042079, -0.0010616,
  -0.0032042, -0.0021745, 0.014375, -0.0001592, 32.116, -0.14412, 0.012337, -0.13207, -0.0040276, -0.00093269,
  -0.0039396, -0.0022667, -0.011487, -0.00020323,
]

/** Their standard deviations. */
export const coefficientDeviation: readonly number[] = [
  259.96, 2.7776, 2.0454, 1.3947, 1.1929, 0.86391, 0.68394, 3.9907, 0.5662, 0.59385, 0.43958, 0.38698, 0.30748, 0.26694,
  2.4791, 0.59187, 0.64341, 0.46003, 0.40897, 0.31736, 1.6547, 0.44618, 0.46693, 0.36985, 0.33952, 0.26992, 1.3388,
  0.39514, 0.42135, 0.34065, 0.32892, 0.25796, 1.0203, 0.31577, 0.3287, 0.27429, 0.26293, 0.22137, 0.84185, 0.27672,
  0.28746, 0.24236, 0.23329, 0.19236, 81.161, 0.49091, 0.31735, 0.78728, 0.10321, 0.096477, 0.38195, 0.097172, 0.23052,
  0.063559, 75.848, 0.46409, 0.29777, 0.70298, 0.094832, 0.08731, 0.3597, 0.087856, 0.21259, 0.057565,
]

const channels = coefficientMean.length

// In half precision the coefficients come as f16, which holds them exactly: none is above 1024.
const normalizeCoefficientsOp = defineOp<undefined>('normalizeCoefficients', {
  divide: bySample(),
  shape: ([x = spec([])]) => {
    if (!isFloat(x) || x.shape.at(-1) !== channels) throw new Error(`expects floats [N, H, W, ${channels}]`)
    return [spec(x.shape)]
  },
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])] }) => {
    const count = elements(x.shape) / 4
    const grid = flatGrid(ceilDiv(count, 64))
    const dispatch = {
      label: 'normalizeCoefficients',
      source: shader(shaders.normalize_coefficients, { aliases: { T: packType(x, 4), U: packType(y, 4) } }),
      reads: [inputBuffer(0)],
      writes: [outputBuffer(0)],
      uniforms: [count, grid[0], 0, 0, ...[...coefficientMean, ...coefficientDeviation].map(floatBits)],
      grid,
    }
    return [{ name: 'packs', dispatches: [dispatch] }]
  },
})

/** DCT coefficients f32 [N, H, W, 64] of images, as `dctCoefficients` makes them, less their mean, by their deviation. */
export const normalizeCoefficients = (x: Tensor): Tensor => applyOne(normalizeCoefficientsOp, [x], undefined)
