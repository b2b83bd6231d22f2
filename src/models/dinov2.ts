import { z } from 'zod'
import { read, scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { concat, slice } from '../kernels/movement.js'
import { add, broadcastTo, gelu, mul } from '../kernels/pointwise.js'
import { resizeCubic } from '../kernels/resize-cubic.js'
import { knownWidths } from './infer.js'
import { conv, type Declarations, type Layer, named } from './layers.js'
import { mitKeys } from './mit.js'
import type { Backbone, Four, InferredConfig, StateShapes } from './segmentation.js'
import { initialDeviation, layerNorm, linearLayer, multiHeadAttention } from './transformer.js'

export interface DinoV2Config {
  /** Channels of a token. */
  readonly dim: number
  /** Heads of attention. */
  readonly heads: number
  /** Blocks. */
  readonly depth: number
  /** Blocks behind which the four feature maps are taken, from 0. */
  readonly taps: Four
  /** Side of the images that the position table is of, in pixels. */
  readonly img_size: number
  /** Side of a patch in pixels. */
  readonly patch: number
  /** Channels within the feed-forward network of a block, as a multiple of those of a token. */
  readonly mlp_ratio: number
}

const count = z.int().min(1)
const place = z.int().min(0)

export const dinoV2Keys = {
  dim: count.describe('DINOv2: channels of a token.'),
  heads: count.describe('DINOv2: heads of attention.'),
  depth: count.describe('DINOv2: number of blocks.'),
  taps: z
    .tuple([place, place, place, place])
    .describe(
      'DINOv2: blocks, counted from 0, behind which the head takes its four feature maps; the last one is last.',
    ),
  img_size: count.describe('DINOv2: side of the images that its position table is of, in pixels.'),
  patch: count.max(64).describe('DINOv2: side of a patch in pixels; those of crops are multiples of it.'),
  mlp_ratio: mitKeys.mlp_ratio,
}

const usual = { img_size: 518, patch: 14, mlp_ratio: 4 }

/** Vision transformers of the DINOv2 paper, without register tokens. */
export const dinoV2Presets = {
  'dinov2-small': { ...usual, dim: 384, heads: 6, depth: 12, taps: [2, 5, 8, 11] },
  'dinov2-base': { ...usual, dim: 768, heads: 12, depth: 12, taps: [2, 5, 8, 11] },
  'dinov2-large': { ...usual, dim: 1024, heads: 16, depth: 24, taps: [4, 11, 17, 23] },
} satisfies Record<string, DinoV2Config>

/** What is wrong with a configuration whose keys are right one by one. */
export function conflictIn({ dim, heads, depth, taps, img_size: size, patch }: DinoV2Config): string | undefined {
  if (dim % heads !== 0) return 'dim must be a multiple of heads'
  if (size % patch !== 0) return 'img_size must be a multiple of patch'
  const rises = taps.every((tap, i) => i === 0 || tap > (taps[i - 1] ?? 0))
  return rises && taps[3] === depth - 1 ? undefined : `taps must rise to the last block, which is ${depth - 1}`
}

/** Scopes of the blocks up to each tap. */
export const dinoV2Stages = ({ taps }: Pick<DinoV2Config, 'taps'>): Record<string, string[]> =>
  Object.fromEntries(
    taps.map((tap, stage) => {
      const first = stage === 0 ? 0 : (taps[stage - 1] ?? 0) + 1
      const blocks = Array.from({ length: tap - first + 1 }, (_, i) => `backbone.blocks.${first + i}`)
      return [`stage${stage + 1}`, blocks]
    }),
  )

const norm = (at: Declarations, channels: number): Layer => layerNorm(at, channels, { eps: 1e-6 })

/**
 * DINOv2 (Oquab et al., 2023): a plain vision transformer with layer scale, whose feature maps are the patch tokens behind
 * four of its blocks, each normalised by the last layer norm, all of the same size. Names are those of the official code.
 */
export function createDinoV2(at: Declarations, config: DinoV2Config): Backbone {
  const { dim, depth, taps, img_size, patch } = config
  const side = img_size / patch
  const { random } = at
  const normal = (spread: number) => random && (() => spread * random.normal())
  const classToken = at.parameter('cls_token', [1, 1, dim], normal(1e-6))
  const table = at.parameter('pos_embed', [1, 1 + side * side, dim], normal(initialDeviation))
  // That of masked patches in DINOv2's own training.
  at.untrained().parameter('mask_token', [1, dim])
  const embed = conv(at.at('patch_embed.proj'), 3, dim, { kernel: patch, stride: patch, padding: 0, bias: true })
  const blocks = Array.from({ length: depth }, (_, i) => {
    const name = `blocks.${i}`
    return named(name, visionBlock(at.at(name), dim, config))
  })
  const normalize = named('norm', norm(at.at('norm'), dim))
  return {
    channels: taps.map(() => dim),
    strides: taps.map(() => patch),
    features(x, mode) {
      const [samples = 0, height = 0, width = 0] = x.shape
      if (height % patch !== 0 || width % patch !== 0) {
        throw new Error(`the model computes images whose sides are multiples of ${patch}, not ${height} x ${width}`)
      }
      return scoped('backbone', () => {
        const map = scoped('patch_embed.proj', () => embed(x, mode))
        const [, rows = 0, columns = 0] = map.shape
        let tokens = scoped('tokens', () => withPositions(map, read(classToken), read(table), side))
        const maps: Tensor[] = []
        for (const [i, block] of blocks.entries()) {
          tokens = block(tokens, mode)
          if (!taps.includes(i)) continue
          const patches = slice(tokens, 1, 1, rows * columns)
          maps.push(normalize(patches, mode).reshape(samples, rows, columns, dim))
        }
        return maps
      })
    },
  }
}

/** The class token, then the patches [N, h, w, D] row by row, and their places: [N, 1 + h · w, D]. */
export function withPositions(map: Tensor, classToken: Tensor, table: Tensor, side: number): Tensor {
  const [samples = 0, rows = 0, columns = 0, dim = 0] = map.shape
  const count = rows * columns
  const first = broadcastTo(classToken.reshape(dim), [samples, dim]).reshape(samples, 1, dim)
  const tokens = concat([first, map.reshape(samples, count, dim)], 1)
  const places = positionTable(table, side, [rows, columns])
  // All tokens of a sample as one row, to which what is the same for all samples broadcasts.
  const length = (1 + count) * dim
  return add(tokens.reshape(samples, length), places.reshape(length)).reshape(samples, 1 + count, dim)
}

/**
 * The position table [1, 1 + side², D] for a grid of patches: the row of the class token as it is, the others resized
 * bicubically unless the grid is that of the table. The scale is that of the grid and 0.1 more on each side, as in DINOv2.
 *
 * @returns [1, 1 + rows · columns, D]
 */
export function positionTable(table: Tensor, side: number, [rows, columns]: readonly [number, number]): Tensor {
  if (rows === side && columns === side) return table
  const dim = table.shape[2] ?? 0
  const grid = slice(table, 1, 1, side * side).reshape(1, side, side, dim)
  const ratio = [side / (rows + 0.1), side / (columns + 0.1)] as const
  const resized = resizeCubic(grid, [rows, columns], ratio)
  return concat([slice(table, 1, 0, 1), resized.reshape(1, rows * columns, dim)], 1)
}

/** Attention, then a feed-forward network, each of what is normalised first, scaled by channel, and added to its input. */
export function visionBlock(
  at: Declarations,
  dim: number,
  { heads, mlp_ratio }: Pick<DinoV2Config, 'heads' | 'mlp_ratio'>,
): Layer {
  const norm1 = named('norm1', norm(at.at('norm1'), dim))
  const attend = multiHeadAttention(at.at('attn'), dim, heads, { input: 'qkv.', output: 'proj.' })
  const scale1 = at.at('ls1').parameter('gamma', [dim], () => 1)
  const norm2 = named('norm2', norm(at.at('norm2'), dim))
  const widen = named('mlp.fc1', linearLayer(at.at('mlp.fc1'), dim, mlp_ratio * dim))
  const narrow = named('mlp.fc2', linearLayer(at.at('mlp.fc2'), mlp_ratio * dim, dim))
  const scale2 = at.at('ls2').parameter('gamma', [dim], () => 1)
  return (x, mode) => {
    const normed = norm1(x, mode)
    const attended = add(
      x,
      mul(
        scoped('attn', () => attend(normed, normed)),
        read(scale1),
      ),
    )
    const fed = narrow(gelu(widen(norm2(attended, mode), mode)), mode)
    return add(attended, mul(fed, read(scale2)))
  }
}

/** What a state_dict tells of a DINOv2. */
export function inferDinoV2(state: StateShapes): InferredConfig {
  const shapeOf = (name: string) => state.get(`backbone.${name}`)?.shape ?? []
  const [, tokens = 0, dim = 0] = shapeOf('pos_embed')
  const [, , patch = 0] = shapeOf('patch_embed.proj.weight')
  let depth = 0
  while (shapeOf(`blocks.${depth}.ls1.gamma`).length > 0) depth++
  if (depth === 0) return { widths: {}, geometry: { heads: 1, taps: [0, 1, 2, 3] } }
  const widths = knownWidths({
    dim,
    depth,
    patch,
    img_size: patch * Math.sqrt(tokens - 1),
    mlp_ratio: (shapeOf('blocks.0.mlp.fc1.weight')[0] ?? 0) / dim,
  })
  const preset = Object.values(dinoV2Presets).find((each) => each.depth === depth && each.dim === dim)
  const quarters = [1, 2, 3, 4].map((k) => Math.floor((k * depth) / 4) - 1)
  return { widths, geometry: { heads: preset?.heads ?? dim / 64, taps: preset?.taps ?? quarters } }
}
