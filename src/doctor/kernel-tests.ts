import type { AdapterTraits } from '../engine/adapter.js'
import type { Device } from '../engine/device.js'
import type { Node, Tensor } from '../engine/ir.js'
import type { Candidate } from '../engine/kernel.js'
import type { SelectKernel } from '../engine/kernel-selection.js'
import { compile } from '../engine/program.js'
import { elements, type Shape, spec } from '../engine/shape.js'
import { grad } from '../kernels/autograd.js'
import { conv2d } from '../kernels/conv2d.js'
import { matmul } from '../kernels/matmul.js'
import { castCall, mul, scale, sum } from '../kernels/pointwise.js'
import { type Product, products, resultShape } from './products.js'

interface Tested extends Product {
  readonly name: string
  readonly matrix?: boolean
}

/** The products that networks are made of, of extents that are no multiples of a tile's. */
const tested: readonly Tested[] = [
  { name: 'matrix product', matrix: true, x: [1, 1, 65, 130], w: [1, 1, 130, 67] },
  { name: '1x1 convolution', x: [2, 9, 11, 40], w: [1, 1, 40, 72] },
  { name: '3x3 convolution', x: [1, 17, 13, 24], w: [3, 3, 24, 40], padding: 1 },
  { name: '3x3 convolution of 3 channels with stride 2', x: [2, 19, 17, 3], w: [3, 3, 3, 16], padding: 1, stride: 2 },
  { name: '3x3 convolution with long sums', x: [1, 63, 65, 16], w: [3, 3, 16, 24], padding: 1 },
  { name: '3x3 convolution with stride 2', x: [2, 15, 11, 16], w: [3, 3, 16, 33], padding: 1, stride: 2 },
  { name: '3x3 convolution with dilation 6', x: [1, 13, 13, 32], w: [3, 3, 32, 64], padding: 6, dilation: 6 },
]

/** The result of a product, its gradient with respect to the first factor, and to the second, in the order of their nodes. */
const results = ['y', 'dx', 'dw'] as const

const titles = { y: '', dx: "'s input gradient", dw: "'s weight gradient" } as const

/** What came of the tests: kernels that were right, and in words those that were not. */
export interface KernelTests {
  readonly right: number
  readonly wrong: readonly string[]
}

type Drawn = Record<'x' | 'w' | 'dy', Float32Array<ArrayBuffer>>

/** Eighths from -1 to 1: their products add up without rounding in float32. */
const eighths = (shape: Shape, step: number): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: elements(shape) }, (_, i) => ((i * step) % 17) / 8 - 1)

/** An element in the middle of a map, where no tap of a convolution's lies outside. */
const middle = ([n = 1, height = 1, width = 1, channels = 1]: Shape): number =>
  (((n - 1) * height + (height >> 1)) * width + (width >> 1)) * channels + (channels >> 1)

/** Finite factors, and the same with an infinite element each, which may reach no result but its own. */
function draws({ x, w, ...rest }: Product): Drawn[] {
  const y = resultShape({ x, w, ...rest })
  const finite = { x: eighths(x, 5), w: eighths(w, 7), dy: eighths(y, 3) }
  const infinite = { ...finite, x: finite.x.slice(), dy: finite.dy.slice() }
  infinite.x[middle(x)] = Number.POSITIVE_INFINITY
  infinite.dy[middle(y)] = Number.NEGATIVE_INFINITY
  return [finite, infinite]
}

function compileProduct(
  device: Device,
  { x, w, matrix, name, ...options }: Tested,
  half: boolean,
  select: SelectKernel,
) {
  const y = resultShape({ x, w, ...options })
  const body = (t: Record<keyof Drawn, Tensor>) => {
    const flat = () => matmul(t.x.reshape(x[2] ?? 0, x[3] ?? 0), t.w.reshape(w[2] ?? 0, w[3] ?? 0))
    const result = matrix ? flat() : conv2d(t.x, t.w, options)
    const [dx = result, dw = result] = grad(sum(mul(result.reshape(...y), t.dy)), [t.x, t.w])
    // What a program delivers is f32: one step before, results are stored as they are in training.
    return { y: scale(result, 1), dx: scale(dx, 1), dw: scale(dw, 1) }
  }
  const inputs = { x: spec(x), w: spec(w), dy: spec(y) }
  const precision = half ? { autocast: castCall } : {}
  return compile(device, inputs, body, { label: name, optimize: false, selectKernel: select, ...precision })
}

/** The kernels to be tested of a node: all for a GPU's matrix units, else the one that is taken by rule. */
function kernelsOf(candidates: readonly Candidate[], { software }: AdapterTraits): readonly Candidate[] {
  const units = software ? [] : candidates.filter(({ usesMatrixUnits }) => usesMatrixUnits)
  return units.length > 0 ? units : candidates.slice(0, 1)
}

/** Milliseconds after which only kernels that are taken by rule are tested: the tuner compares the others before it takes one. */
const patience = 10_000

/**
 * Computes products and their gradients on the device, in float32 or with f16, with tails of all tiles and with infinities,
 * and compares them with the CPU.
 */
export async function testKernels(device: Device, half: boolean): Promise<KernelTests> {
  const begin = performance.now()
  const names = new Set<string>()
  const wrong = new Map<string, string>()
  for (const product of tested) {
    const drawn = draws(product).map((data) => ({ data, expected: products(product, data) }))
    for (let k = 0, rounds = 1; k < rounds && (k === 0 || performance.now() < begin + patience); k++) {
      const chosen = new Map<Node, string>()
      const select: SelectKernel = (node, candidates) => {
        const kernels = kernelsOf(candidates, device.traits)
        const kernel = kernels[Math.min(k, kernels.length - 1)]
        if (node.op?.multiplyAdds && kernel) {
          rounds = Math.max(rounds, kernels.length)
          chosen.set(node, kernel.name)
        }
        return kernel
      }
      const program = await compileProduct(device, product, half, select)
      const taken = [...chosen.values()]
      for (const { data, expected } of drawn) {
        program.run(data)
        const found = await program.readAll(results)
        for (const [i, result] of results.entries()) {
          const kernel = `${product.name}${titles[result]}, kernel '${taken[i]}'`
          const off = difference(found[i] ?? [], expected[result], half)
          names.add(kernel)
          if (off && !wrong.has(kernel)) wrong.set(kernel, `${kernel}: ${off}`)
        }
      }
      program.destroy()
    }
  }
  return { right: names.size - wrong.size, wrong: [...wrong.values()] }
}

/** Where results differ by more than their one rounding to f16, in words; float32 rounds nothing here. */
export function difference(found: ArrayLike<number>, expected: ArrayLike<number>, half: boolean): string | undefined {
  for (let i = 0; i < expected.length; i++) {
    const [a = Number.NaN, b = Number.NaN] = [found[i], expected[i]]
    const isRight = Number.isFinite(b) ? Math.abs(a - b) <= (half ? 2 ** -11 * Math.abs(b) : 0) : !Number.isFinite(a)
    if (!isRight) return `element ${i} is ${a}, not ${b}`
  }
  return undefined
}
