// Operators of a vision transformer and its head, and of what UniMatch V2 does to batches.
import { assign } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { type Spec, spec } from '#dist/engine/shape.js'
import type { Store } from '#dist/engine/store.js'
import { convTranspose2d } from '#dist/kernels/conv-transpose2d.js'
import { add, mul, toU32 } from '#dist/kernels/pointwise.js'
import { createDinoV2, positionTable, visionBlock, withPositions } from '#dist/models/dinov2.js'
import { dptHead, fusion, residualUnit } from '#dist/models/dpt.js'
import { conv, Declarations, type Layer } from '#dist/models/layers.js'
import { complementaryMultipliers } from '#dist/train/methods/complementary-dropout.js'
import { mixReversed } from '#dist/train/methods/unimatch-v2.js'
import type { GoldenCase, Params, Rules, Tensors } from './case.js'
import type { TensorFile } from './files.js'

const mode = { training: true }

/** Gives the variables of a part of a model the values of a case's inputs, whose names lack the path of the part. */
function bind(store: Store, t: Tensors, path = ''): void {
  for (const variable of store.all()) assign(variable, t(`p/${variable.name.slice(path.length)}`))
}

type Four = readonly [number, number, number, number]

const fourOf = (p: Params, name: string): Four => {
  const [a, b, c, d] = p.numbers(name)
  if (a === undefined || b === undefined || c === undefined || d === undefined) throw p.wrong(name, 'four numbers')
  return [a, b, c, d]
}

function layerCase(t: Tensors, store: Store, make: (at: Declarations) => Layer): Record<string, Tensor> {
  const layer = make(new Declarations(store, undefined))
  bind(store, t)
  return { y: layer(t('x'), mode) }
}

/** What the host hands to the program of a case. */
export function dropoutInputsOf(row: GoldenCase, file: TensorFile): Record<string, { spec: Spec; data: Float32Array }> {
  const [bits, order] = ['bits', 'perm'].map((name) => file.floats(`${row.id}/in/${name}`))
  const { shape } = file.get(`${row.id}/in/bits`)
  const [images = 0, channels = 0] = shape
  const data = complementaryMultipliers(bits ?? [], order ?? [])
  return { multipliers: { spec: spec([2 * images, channels]), data } }
}

const patches = (store: Store, path: string, dim: number, side: number): Layer =>
  conv(new Declarations(store, undefined, path), 3, dim, { kernel: side, stride: side, padding: 0, bias: true })

export const visionTransformerRules: Rules = {
  layer_scale: (t) => ({ y: mul(t('x'), t('gamma')) }),
  patch_embed: (t, p, store) => {
    const [dim = 0] = t('b').shape
    const embed = patches(store, 'embed', dim, p.number('patch'))
    assign(store.get('embed.weight'), t('w'))
    assign(store.get('embed.bias'), t('b'))
    const y = embed(t('x'), mode)
    const [n = 0, height = 0, width = 0] = y.shape
    return { y: y.reshape(n, height * width, dim) }
  },
  pos_embed: (t, p) => ({ y: positionTable(t('table'), p.number('side'), [p.number('rows'), p.number('cols')]) }),
  tokens: (t, p, store) => {
    const dim = t('p/cls_token').shape[2] ?? 0
    const embed = patches(store, 'patch_embed.proj', dim, 14)
    bind(store, t)
    const map = embed(t('x'), mode)
    return { y: withPositions(map, t('p/cls_token'), t('p/pos_embed'), p.number('side')) }
  },
  vit_block: (t, p, store) => {
    const options = { heads: p.number('heads'), mlp_ratio: p.number('mlp_ratio') }
    return layerCase(t, store, (at) => visionBlock(at, p.number('dim'), options))
  },
  encoder: (t, p, store) => {
    const encoder = createDinoV2(new Declarations(store, undefined, 'backbone'), {
      dim: p.number('dim'),
      heads: p.number('heads'),
      depth: p.number('depth'),
      taps: fourOf(p, 'taps'),
      img_size: 14 * p.number('side'),
      patch: 14,
      mlp_ratio: 4,
    })
    bind(store, t, 'backbone.')
    const maps = encoder.features(t('x'), mode)
    return Object.fromEntries(
      maps.map((map, i) => {
        const [n = 0, h = 0, w = 0, dim = 0] = map.shape
        return [`tap${i}`, map.reshape(n, h * w, dim)]
      }),
    )
  },
  conv_transpose2d: (t, p) => ({
    y: add(convTranspose2d(t('x'), t('w'), { stride: p.number('stride'), padding: p.number('padding') }), t('b')),
  }),
  residual_unit: (t, _, store) => layerCase(t, store, (at) => residualUnit(at, t('x').shape[3] ?? 0)),
  fusion: (t, p, store) => {
    const adds = p.flag('skip')
    const fuse = fusion(new Declarations(store, undefined), t('deep').shape[3] ?? 0, adds)
    bind(store, t)
    const [height = 0, width = 0] = p.has('size') ? p.numbers('size') : []
    const size = p.has('size') ? ([height, width] as const) : undefined
    return { y: adds ? fuse(t('deep'), t('skip'), size, mode) : fuse(undefined, t('deep'), size, mode) }
  },
  dpt_head: (t, p, store) => {
    const [rows, columns] = [p.number('rows'), p.number('cols')]
    const head = dptHead(new Declarations(store, undefined), {
      dim: p.number('dim'),
      out_channels: fourOf(p, 'out_channels'),
      features: p.number('features'),
      nclass: p.number('nclass'),
    })
    bind(store, t)
    const taps = [0, 1, 2, 3].map((i) => {
      const tap = t(`tap${i}`)
      return tap.reshape(tap.shape[0] ?? 0, rows, columns, tap.shape[2] ?? 0)
    })
    return { y: head(taps, mode) }
  },
  comp_dropout: (t) => {
    const [n = 0, channels = 0] = t('multipliers').shape
    return { mult: t('multipliers'), y: mul(t('x'), t('multipliers').reshape(n, 1, channels)) }
  },
  cutmix_flip: (t) => {
    const mixed = (name: string) => mixReversed(name === 'conf' ? t(name) : toU32(t(name)), t('box'))
    return Object.fromEntries(['img', 'label', 'conf', 'ignore'].map((name) => [name, mixed(name)]))
  },
}
