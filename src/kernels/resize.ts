import { applyOne, type Tensor } from '../engine/graph.js'
import {
  ceilDiv,
  type Dispatch,
  defineOp,
  flatGrid,
  floatBits,
  input,
  type KernelContext,
  output,
} from '../engine/op.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { rowWorkgroup, type ShaderName, shader } from './shaders.js'

interface ResizeAttrs {
  /** Height and width of the result. */
  readonly size: readonly [number, number]
}

/** Input coordinates per output coordinate; an output of one pixel takes input 0. */
const scaleOf = (from: number, to: number): number => (to > 1 ? (from - 1) / (to - 1) : 0)

/** `small` is what the forward pass reads, `large` what it writes; `walked` is the one with a thread per pixel. */
function resizeDispatch(
  label: string,
  name: ShaderName,
  small: Spec,
  large: Spec,
  walked: Spec,
  software: boolean,
): Dispatch {
  const [, xHeight = 0, xWidth = 0, channels = 0] = small.shape
  const [, yHeight = 0, yWidth = 0] = large.shape
  const constants = rowWorkgroup(channels, software)
  const rows = elements(walked.shape.slice(0, 3))
  const grid = flatGrid(ceilDiv(rows, constants.HEIGHT))
  const scales = [floatBits(scaleOf(xHeight, yHeight)), floatBits(scaleOf(xWidth, yWidth))]
  const uniforms = [rows, channels, xHeight, xWidth, yHeight, yWidth, ...scales, grid[0]]
  return { label, source: shader(name, { constants }), reads: [input(0)], writes: [output(0)], uniforms, grid }
}

const resized = (x: Spec, [height, width]: readonly [number, number]): Spec[] => {
  if (x.shape.length !== 4) throw new Error('expects [N, H, W, C]')
  if (height < 1 || width < 1) throw new Error(`cannot resize to ${height} × ${width}`)
  return [spec([x.shape[0] ?? 0, height, width, x.shape[3] ?? 0])]
}

const extent = ({ shape }: Tensor): readonly [number, number] => [shape[1] ?? 0, shape[2] ?? 0]

const resizeOp = defineOp<ResizeAttrs>('resizeBilinear', {
  shape: ([x = spec([])], { size }) => resized(x, size),
  vjp: ({ inputs: [x], grads: [dy] }) => [x && dy && applyOne(resizeGradOp, [dy], { size: extent(x) })],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], adapter }: KernelContext<ResizeAttrs>) => [
    { name: 'rows', dispatches: [resizeDispatch('resizeBilinear', 'resize', x, y, y, adapter.software)] },
  ],
})

const resizeGradOp = defineOp<ResizeAttrs>('resizeBilinearGrad', {
  shape: ([dy = spec([])], { size }) => resized(dy, size),
  kernel: ({ inputs: [dy = spec([])], outputs: [dx = spec([])], adapter }: KernelContext<ResizeAttrs>) => [
    { name: 'rows', dispatches: [resizeDispatch('resizeBilinearGrad', 'resize_grad', dx, dy, dx, adapter.software)] },
  ],
})

/**
 * Bilinear resize as `torch.nn.functional.interpolate` with `align_corners=True`: the corner pixels coincide, and a
 * result of one pixel is the first one.
 *
 * @param x [N, H, W, C]
 * @param size height and width of the result
 */
export const resizeBilinear = (x: Tensor, size: readonly [number, number]): Tensor =>
  size[0] === x.shape[1] && size[1] === x.shape[2] ? x : applyOne(resizeOp, [x], { size })
