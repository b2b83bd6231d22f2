import { convTranspose2d } from '#dist/kernels/conv-transpose2d.js'
import { body, type Family, family, normal } from './case.js'
import * as reference from './reference/index.js'

interface TransposedCase {
  readonly n?: number
  /** Height and width of the map. */
  readonly map: readonly [number, number]
  /** Channels in and out. */
  readonly c: number
  readonly o: number
  readonly kernel: number
  readonly stride: number
  readonly padding?: number
}

const convTransposeFamily = family(
  'convTranspose2d',
  ({ n = 1, map, c, o, kernel, stride, padding = 0 }: TransposedCase) => {
    const pixels = n * map[0] * map[1]
    return body({
      inputs: { x: normal([n, ...map, c]), w: normal([kernel, kernel, o, c]) },
      run: (t) => ({ out: convTranspose2d(t.x, t.w, { stride, padding }) }),
      reference: (v) => ({ out: reference.convTranspose2d(v.x, v.w, stride, padding) }),
      differentiable: ['x', 'w'],
      // Sums over channels and overlapping windows, over a window and its channels, and over the pixels.
      terms: Math.max(c * Math.ceil(kernel / stride) ** 2, o * kernel * kernel, pixels),
      flops: 2 * pixels * kernel * kernel * c * o,
    })
  },
  {
    'four times': { n: 2, map: [3, 5], c: 5, o: 3, kernel: 4, stride: 4 },
    'four times, whole packs': { map: [4, 4], c: 8, o: 8, kernel: 4, stride: 4 },
    'four times, one pixel': { map: [1, 1], c: 6, o: 4, kernel: 4, stride: 4 },
    twice: { n: 2, map: [5, 3], c: 6, o: 6, kernel: 2, stride: 2 },
    'twice, odd channels': { map: [3, 4], c: 7, o: 5, kernel: 2, stride: 2 },
    overlapping: { map: [4, 5], c: 3, o: 4, kernel: 4, stride: 2, padding: 1 },
  },
  ({ batch }): Record<string, TransposedCase> => ({
    'four times, DPT with DINOv2-Small': { n: batch, map: [37, 37], c: 48, o: 48, kernel: 4, stride: 4 },
    'twice, DPT with DINOv2-Small': { n: batch, map: [37, 37], c: 96, o: 96, kernel: 2, stride: 2 },
  }),
)

export const convTransposeFamilies: Family[] = [convTransposeFamily]
