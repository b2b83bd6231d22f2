import { conv2d, conv2dInputGrad, conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import { body, type Family, family, mapSizes, normal, type Setting } from './case.js'
import * as reference from './reference/index.js'

export interface ConvShape {
  readonly n?: number
  /** Height and width of the map. */
  readonly map: readonly [number, number]
  /** Channels in and out. */
  readonly c: number
  readonly o: number
  readonly kernel?: readonly [number, number]
  readonly stride?: number
  readonly padding?: number
  readonly dilation?: number
  readonly groups?: number
}

/** Shapes and options of a convolution, and the sizes of its sums. */
function geometry({ n = 1, map, c, o, kernel = [1, 1], ...rest }: ConvShape) {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = rest
  const options = { stride, padding, dilation, groups }
  const x = [n, ...map, c]
  const w = [...kernel, c / groups, o]
  const [oh, ow] = [0, 1].map((axis) => reference.outputExtent(map[axis] ?? 0, kernel[axis] ?? 0, options))
  const y = [n, oh ?? 0, ow ?? 0, o]
  const window = kernel[0] * kernel[1]
  // Places of an axis and taps that meet within the map, added up; the rest is padding.
  const meetings = (size: number, taps: number, places: number): number => {
    let total = 0
    for (let place = 0; place < places; place++) {
      for (let tap = 0; tap < taps; tap++) {
        const at = place * stride - padding + tap * dilation
        if (at >= 0 && at < size) total++
      }
    }
    return total
  }
  const pixels = n * (oh ?? 0) * (ow ?? 0)
  return {
    options,
    x,
    w,
    y,
    // Sums over the window and input channels, the window and output channels, and the pixels.
    terms: Math.max((window * c) / groups, (window * o) / groups, pixels),
    flops: (2 * n * meetings(map[0], kernel[0], oh ?? 0) * meetings(map[1], kernel[1], ow ?? 0) * c * o) / groups,
  }
}

const k3 = [3, 3] as const

const convShapes: Record<string, ConvShape> = {
  '1x1': { n: 2, map: [5, 7], c: 3, o: 17 },
  '1x1 on one pixel': { map: [1, 1], c: 65, o: 33 },
  '1x1, stride 2': { n: 2, map: [7, 9], c: 5, o: 7, stride: 2 },
  '1x1, stride 3 with a remainder': { map: [8, 5], c: 4, o: 4, stride: 3 },
  '1x1, many channels': { map: [5, 5], c: 65, o: 33 },
  '1x1, whole tiles': { map: [8, 8], c: 64, o: 64 },
  '1x1, one channel out': { n: 3, map: [3, 3], c: 17, o: 1 },
  '1x1, long sum': { map: [2, 3], c: 515, o: 4 },
  '1x1, many pixels': { n: 3, map: [21, 19], c: 4, o: 4 },
  '1x1, 512 channels out': { n: 2, map: [6, 6], c: 20, o: 512 },
  '3x3, one channel': { map: [5, 5], c: 1, o: 1, kernel: k3, padding: 1 },
  '3x3, odd': { n: 2, map: [7, 5], c: 3, o: 5, kernel: k3, padding: 1 },
  '3x3 without padding': { map: [6, 5], c: 7, o: 3, kernel: k3 },
  '3x3 to one pixel': { map: [3, 3], c: 5, o: 7, kernel: k3 },
  '3x3 on one pixel': { n: 2, map: [1, 1], c: 5, o: 7, kernel: k3, padding: 1 },
  '3x3, stride 2, odd': { map: [9, 7], c: 3, o: 17, kernel: k3, stride: 2, padding: 1 },
  '3x3, stride 2, even': { n: 2, map: [8, 6], c: 5, o: 4, kernel: k3, stride: 2, padding: 1 },
  '3x3, stride 2 with unread pixels': { map: [8, 6], c: 3, o: 3, kernel: k3, stride: 2 },
  '3x3, stride 3': { map: [11, 10], c: 4, o: 5, kernel: k3, stride: 3, padding: 1 },
  '3x3, padding 3': { map: [4, 3], c: 3, o: 2, kernel: k3, padding: 3 },
  '3x3, whole tiles': { map: [8, 8], c: 32, o: 32, kernel: k3, padding: 1 },
  '3x3, several tiles, long sum': { n: 3, map: [6, 5], c: 60, o: 130, kernel: k3, padding: 1 },
  '3x3, 33 to 65 channels': { map: [4, 4], c: 33, o: 65, kernel: k3, padding: 1 },
  '3x3, 20 to 12 channels': { map: [5, 6], c: 20, o: 12, kernel: k3, padding: 1 },
  '3x3, many pixels': { n: 2, map: [23, 21], c: 4, o: 8, kernel: k3, padding: 1 },
  '3x3, dilation 2': { map: [7, 9], c: 5, o: 6, kernel: k3, padding: 2, dilation: 2 },
  '3x3, dilation 2, stride 2': { map: [9, 8], c: 3, o: 4, kernel: k3, padding: 2, dilation: 2, stride: 2 },
  '3x3, dilation 6 beyond the map': { map: [5, 4], c: 7, o: 5, kernel: k3, padding: 6, dilation: 6 },
  '3x3, dilation 6, partly outside': { map: [9, 8], c: 4, o: 4, kernel: k3, padding: 6, dilation: 6 },
  '3x3, dilation 18 beyond the map': { n: 2, map: [3, 7], c: 3, o: 8, kernel: k3, padding: 18, dilation: 18 },
  '3x3, dilation 2, padding 1': { n: 2, map: [8, 11], c: 12, o: 20, kernel: k3, padding: 1, dilation: 2 },
  '3x3, dilation 3, padding 7': { map: [4, 7], c: 9, o: 6, kernel: k3, padding: 7, dilation: 3 },
  '5x5, larger than the map': { map: [2, 3], c: 4, o: 3, kernel: [5, 5], padding: 2 },
  '7x7, stride 2': { map: [11, 9], c: 3, o: 4, kernel: [7, 7], stride: 2, padding: 3 },
  '2x2': { map: [5, 4], c: 3, o: 4, kernel: [2, 2] },
  '1x3': { map: [4, 5], c: 4, o: 3, kernel: [1, 3], padding: 1 },
  '3x1, stride 2': { map: [5, 6], c: 3, o: 4, kernel: [3, 1], stride: 2, padding: 1 },
  'patches of 4x4': { n: 2, map: [9, 12], c: 3, o: 5, kernel: [4, 4], stride: 4 },
  'patches of 2x2, the last column unread': { map: [6, 5], c: 12, o: 8, kernel: [2, 2], stride: 2 },
  'patches of 14x14': { map: [28, 42], c: 3, o: 6, kernel: [14, 14], stride: 14 },
  'one patch of 8x8': { map: [9, 10], c: 8, o: 8, kernel: [8, 8], stride: 8 },
  'overlapping patches of 7x7': { map: [17, 21], c: 3, o: 5, kernel: [7, 7], stride: 4, padding: 3 },
  '2 groups': { map: [5, 6], c: 6, o: 10, kernel: k3, padding: 1, groups: 2 },
  '3 groups, one channel out each': { n: 2, map: [4, 5], c: 9, o: 3, kernel: k3, padding: 1, groups: 3 },
  '2 groups of 33': { map: [3, 4], c: 66, o: 34, groups: 2 },
  depthwise: { n: 2, map: [6, 5], c: 7, o: 7, kernel: k3, padding: 1, groups: 7 },
  'depthwise, 65 channels': { map: [4, 5], c: 65, o: 65, kernel: k3, padding: 1, groups: 65 },
  'depthwise, stride 2': { map: [7, 8], c: 5, o: 5, kernel: k3, stride: 2, padding: 1, groups: 5 },
  'depthwise, dilation 12 beyond the map': {
    map: [5, 6],
    c: 4,
    o: 4,
    kernel: k3,
    padding: 12,
    dilation: 12,
    groups: 4,
  },
  'depthwise, packs': { n: 2, map: [6, 9], c: 12, o: 12, kernel: k3, padding: 1, groups: 12 },
  'depthwise, packs, one row': { n: 3, map: [1, 6], c: 8, o: 8, kernel: k3, padding: 1, groups: 8 },
  'depthwise, packs, one pixel': { map: [1, 1], c: 4, o: 4, kernel: k3, padding: 1, groups: 4 },
  'depthwise, packs, many pixels': { n: 2, map: [19, 22], c: 8, o: 8, kernel: k3, padding: 1, groups: 8 },
  'depthwise, packs, stride 2, even': { n: 2, map: [8, 10], c: 8, o: 8, kernel: k3, stride: 2, padding: 1, groups: 8 },
  'depthwise, packs, stride 2, odd': { map: [9, 11], c: 12, o: 12, kernel: k3, stride: 2, padding: 1, groups: 12 },
  'depthwise, packs, stride 3': { map: [11, 10], c: 4, o: 4, kernel: k3, stride: 3, padding: 1, groups: 4 },
  'depthwise, packs, stride 4, unread pixels': {
    map: [9, 13],
    c: 4,
    o: 4,
    kernel: k3,
    stride: 4,
    padding: 1,
    groups: 4,
  },
  'depthwise, packs, dilation 2': { map: [7, 11], c: 8, o: 8, kernel: k3, padding: 2, dilation: 2, groups: 8 },
  'depthwise, packs, dilation 3, stride 2': {
    map: [10, 9],
    c: 4,
    o: 4,
    kernel: k3,
    stride: 2,
    padding: 3,
    dilation: 3,
    groups: 4,
  },
  'depthwise, packs, dilation 2, stride 2': {
    map: [10, 9],
    c: 4,
    o: 4,
    kernel: k3,
    stride: 2,
    padding: 2,
    dilation: 2,
    groups: 4,
  },
  'depthwise, packs, 5x2': { map: [7, 6], c: 4, o: 4, kernel: [5, 2], padding: 1, groups: 4 },
  'depthwise, packs, 7x7': { map: [8, 7], c: 4, o: 4, kernel: [7, 7], padding: 3, groups: 4 },
  'depthwise, 2 channels out each': { map: [4, 5], c: 3, o: 6, kernel: k3, padding: 1, groups: 3 },
}

/** Every convolution of DeepLabV3+ with a ResNet-50, once per shape, and the embedding of patches of a vision transformer. */
function deepLabShapes({ crop, batch }: Setting): Record<string, ConvShape> {
  const { s2, s4, s8, s16 } = mapSizes(crop)
  const shapes: Record<string, ConvShape> = {}
  const put = (layer: string, size: number, c: number, o: number, options: Partial<ConvShape> = {}) => {
    const { kernel = [1, 1], stride = 1, dilation = 1 } = options
    const extras = `${stride > 1 ? ` s${stride}` : ''}${dilation > 1 ? ` d${dilation}` : ''}`
    shapes[`${layer} ${kernel.join('x')}${extras} ${c}-${o} @${size}`] = {
      n: batch,
      map: [size, size],
      c,
      o,
      ...options,
    }
  }
  const same = (dilation = 1, stride = 1) => ({ kernel: k3, padding: dilation, dilation, stride })
  put('stem', crop, 3, 64, same(1, 2))
  put('stem', s2, 64, 64, same())
  put('stem', s2, 64, 128, same())
  const stages = [
    { name: 'layer1', from: 128, planes: 64, size: s4, out: s4 },
    { name: 'layer2', from: 256, planes: 128, size: s4, out: s8 },
    { name: 'layer3', from: 512, planes: 256, size: s8, out: s16 },
    { name: 'layer4', from: 1024, planes: 512, size: s16, out: s16 },
  ]
  for (const { name, from, planes, size, out } of stages) {
    const stride = size === out ? 1 : 2
    put(name, size, from, planes)
    put(name, size, planes, planes, same(1, stride))
    put(name, out, planes, planes * 4)
    put(name, size, from, planes * 4, { stride })
    put(name, out, planes * 4, planes)
    if (name === 'layer4') put(name, out, planes, planes, same(2))
    else if (stride > 1) put(name, out, planes, planes, same())
  }
  put('aspp', s16, 2048, 256)
  for (const dilation of [6, 12, 18]) put('aspp', s16, 2048, 256, same(dilation))
  put('aspp pool', 1, 2048, 256)
  put('aspp project', s16, 1280, 256)
  put('reduce', s4, 256, 48)
  put('fuse', s4, 304, 256, same())
  put('fuse', s4, 256, 256, same())
  put('classifier', s4, 256, 21)
  put('patches of DINOv2-Small', 518, 3, 384, { kernel: [14, 14], stride: 14 })
  return shapes
}

export const convFamily = family(
  'conv2d',
  (shape: ConvShape) => {
    const { options, x, w, terms, flops } = geometry(shape)
    return body({
      inputs: { x: normal(x), w: normal(w) },
      run: (t) => ({ out: conv2d(t.x, t.w, options) }),
      reference: (v) => ({ out: reference.conv2d(v.x, v.w, options) }),
      differentiable: ['x', 'w'],
      terms,
      flops,
    })
  },
  convShapes,
  deepLabShapes,
)

/** The gradients as operators of their own; on all shapes they are tested as gradients of conv2d. */
const gradientShapes = Object.fromEntries(
  Object.entries(convShapes).filter(([name]) =>
    ['3x3, odd', '3x3, stride 2, even', '2 groups', 'depthwise'].includes(name),
  ),
)

const inputGradFamily = family(
  'conv2dInputGrad',
  (shape: ConvShape) => {
    const { options, x, w, y, terms, flops } = geometry(shape)
    return body({
      inputs: { dy: normal(y), w: normal(w) },
      run: (t) => ({ out: conv2dInputGrad(t.dy, t.w, { ...options, size: x }) }),
      reference: (v) => ({ out: reference.conv2dInputGrad(v.dy, v.w, { ...options, size: x }) }),
      terms,
      flops,
    })
  },
  gradientShapes,
  deepLabShapes,
)

const weightGradFamily = family(
  'conv2dWeightGrad',
  (shape: ConvShape) => {
    const { options, x, w, y, terms, flops } = geometry(shape)
    return body({
      inputs: { x: normal(x), dy: normal(y) },
      run: (t) => ({ out: conv2dWeightGrad(t.x, t.dy, { ...options, size: w }) }),
      reference: (v) => ({ out: reference.conv2dWeightGrad(v.x, v.dy, { ...options, size: w }) }),
      terms,
      flops,
    })
  },
  gradientShapes,
  deepLabShapes,
)

export const convFamilies: Family[] = [convFamily, inputGradFamily, weightGradFamily]
