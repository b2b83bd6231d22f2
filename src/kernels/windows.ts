import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { spec } from '../engine/shape.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'

const addWindowsOp = defineOp<undefined>('addWindows', {
  shape: ([sums = spec([]), maps = spec([]), places = spec([])]) => {
    const [, , channels] = sums.shape
    if (sums.shape.length !== 3 || maps.shape.length !== 4) throw new Error('expects sums [H, W, C], maps [N, h, w, C]')
    if (maps.shape[3] !== channels) throw new Error('maps and sums differ in their channels')
    if (places.dtype !== 'u32' || places.shape[0] !== maps.shape[0] || places.shape[1] !== 2) {
      throw new Error('places must be u32 [N, 2]')
    }
    return [sums]
  },
  inplace: () => new Map([[0, 0]]),
  // One dispatch after the other, so that the maps are added in their order.
  kernel: ({ inputs: [sums = spec([]), maps = spec([])] }) => {
    const [sumHeight = 0, sumWidth = 0, channels = 0] = sums.shape
    const [count = 0, height = 0, width = 0] = maps.shape
    const pixels = height * width
    const grid = flatGrid(ceilDiv(pixels, 64))
    const source = shader(shaders.add_windows)
    const dispatches = Array.from({ length: count }, (_, index) => ({
      label: 'addWindows',
      source,
      reads: [inputBuffer(1), inputBuffer(2)],
      writes: [outputBuffer(0)],
      uniforms: [pixels, width, channels, index, sumHeight, sumWidth, grid[0]],
      grid,
    }))
    return [{ name: 'pixels', dispatches }]
  },
})

/**
 * Adds maps to a larger one in their order, each at its place; what lies outside of the larger one is left out. No
 * gradient flows.
 *
 * @param sums [H, W, C]
 * @param maps [N, h, w, C]
 * @param places u32 [N, 2]: row and column of each map's upper left pixel, negative ones as their two's complement
 * @returns the new sums, for the caller to assign
 */
export const addWindows = (sums: Tensor, maps: Tensor, places: Tensor): Tensor =>
  applyOne(addWindowsOp, [sums, maps, places], undefined)
