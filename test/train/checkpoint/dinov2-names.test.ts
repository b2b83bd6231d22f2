// DINOv2 as other programs save it.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { checkpointModel, loadBackbone, readCheckpoint } from '#dist/train/checkpoint/read.js'
import { Random } from '#dist/train/random.js'
import {
  backboneOf,
  drawnState,
  type Entry,
  loadsBackbone,
  type Names,
  refusal,
  rows,
  type State,
  writerInto,
} from '../../support/foreign-weights.js'
import { smallDinoV2 } from '../../support/small-dinov2.js'

const test = suite('DINOv2 names')
const device = await open()
const folder = mkdtempSync(join(tmpdir(), 'atrous-dinov2-'))
test.after(() => {
  device.destroy()
  rmSync(folder, { recursive: true })
})

const modelOf = (seed: number, config: object = {}): SegmentationModel =>
  createModel(
    new Store(device, 'names'),
    { architecture: 'dpt', config: { ...smallDinoV2, ...config } },
    new Random(seed),
  )

const stateOf = (seed: number, config?: object) => drawnState(modelOf(seed, config), seed)
const fileOf = writerInto(folder)

const official: Names = (rest, tensor) => [[rest, tensor]]

const huggingFace: Names = (rest, tensor) => {
  const [, block = '', layer = ''] = /^blocks\.(\d+)\.(.*)$/.exec(rest) ?? []
  const at = `encoder.layer.${block}`
  const packed = /^attn\.qkv\.(.*)$/.exec(layer)?.[1]
  if (packed !== undefined) {
    const size = (tensor.shape[0] ?? 0) / 3
    return ['query', 'key', 'value'].map((part, i) => [
      `${at}.attention.attention.${part}.${packed}`,
      rows(tensor, i * size, (i + 1) * size),
    ])
  }
  const inner = layer
    .replace(/^attn\.proj/, 'attention.output.dense')
    .replace(/^ls([12])\.gamma/, 'layer_scale$1.lambda1')
  const outer = rest
    .replace(/^pos_embed/, 'position_embeddings')
    .replace(/^patch_embed\.proj/, 'patch_embeddings.projection')
  if (block !== '') return [[`${at}.${inner}`, tensor]]
  return [[rest.startsWith('norm.') ? rest.replace(/^norm/, 'layernorm') : `embeddings.${outer}`, tensor]]
}

const classifier: Entry = ['classifier.weight', { dtype: 'F32', shape: [7, 24], data: new Float32Array(168) }]

for (const [what, tensors] of [
  ['the official code', (state) => backboneOf(state, official)],
  ['Hugging Face', (state) => backboneOf(state, huggingFace)],
  ['Hugging Face, with a classifier of images', (state) => [...backboneOf(state, huggingFace, 'dinov2.'), classifier]],
  [
    'a whole model on several devices',
    (state) => [...state].map(([name, tensor]): Entry => [`module.${name}`, tensor]),
  ],
] as [string, (state: State) => Entry[]][]) {
  test(`the backbone of ${what}`, async () => {
    const state = await stateOf(1)
    const model = modelOf(2)
    await loadsBackbone(model, fileOf(tensors(state)), state)
    model.store.destroy()
  })
}

test('a file of another size, of registers, or of a backbone alone is refused, and what it is is said', async () => {
  const wide = fileOf(backboneOf(await stateOf(1, { dim: 16, img_size: 70 }), official))
  assert.match(
    await refusal(() => loadBackbone(modelOf(2), wide)),
    /it was trained with dim 16 instead of 12, img_size 70 instead of 56; .*: choose weights of the backbone that is/,
  )
  const registers: Entry = ['register_tokens', { dtype: 'F32', shape: [1, 4, 12], data: new Float32Array(48) }]
  const withRegisters = fileOf([...backboneOf(await stateOf(1), official), registers])
  assert.match(await refusal(() => loadBackbone(modelOf(2), withRegisters)), /DINOv2 with register tokens/)
  const alone = fileOf(backboneOf(await stateOf(1), official, 'backbone.'))
  assert.match(
    await refusal(() => checkpointModel(readCheckpoint(alone), alone)),
    /does not hold a whole DPT on DINOv2 \(backbone, and a head of projects, resize_layers and scratch\)/,
  )
})

test.run()
