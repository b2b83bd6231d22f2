// SegFormers as other programs save them.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { stateDict } from '#dist/models/weights.js'
import { checkpointModel, loadBackbone, readCheckpoint } from '#dist/train/checkpoint/read.js'
import { loadCheckpoint } from '#dist/train/checkpoint/write.js'
import type { FileTensor } from '#dist/train/io/safetensors.js'
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
import { smallSegFormer } from '../../support/small-segformer.js'

const test = suite('SegFormer names')
const device = await open()
const folder = mkdtempSync(join(tmpdir(), 'atrous-segformer-'))
test.after(() => {
  device.destroy()
  rmSync(folder, { recursive: true })
})

// The heads are those that are assumed where nothing is said of them.
const config = { ...smallSegFormer, embed_dims: [4, 8, 20, 16], num_heads: [1, 2, 5, 8] } as const

const modelOf = (seed: number): SegmentationModel =>
  createModel(new Store(device, 'names'), { architecture: 'segformer', config }, new Random(seed))

const stateOf = (seed: number) => drawnState(modelOf(seed), seed)
const fileOf = writerInto(folder)

const asMatrix = (tensor: FileTensor): FileTensor => ({ ...tensor, shape: tensor.shape.slice(0, 2) })

/** Names and tensors behind `backbone.` as Hugging Face's SegFormer has them. */
const huggingFace: Names = (rest, tensor) => {
  const [, stage = '', place = '', inner = ''] = /^layers\.(\d)\.(\d)\.(.*)$/.exec(rest) ?? []
  if (place === '0') {
    const name = inner.replace(/^projection/, 'proj').replace(/^norm/, 'layer_norm')
    return [[`patch_embeddings.${stage}.${name}`, tensor]]
  }
  if (place === '2') return [[`layer_norm.${stage}.${inner}`, tensor]]
  const [, block = '', layer = ''] = /^(\d+)\.(.*)$/.exec(inner) ?? []
  const at = `block.${stage}.${block}`
  const packed = /^attn\.attn\.in_proj_(.*)$/.exec(layer)?.[1]
  if (packed !== undefined) {
    const size = (tensor.shape[0] ?? 0) / 3
    return ['query', 'key', 'value'].map((part, i) => [
      `${at}.attention.self.${part}.${packed}`,
      rows(tensor, i * size, (i + 1) * size),
    ])
  }
  const theirs = layer
    .replace(/^norm([12])/, 'layer_norm_$1')
    .replace(/^attn\.attn\.out_proj/, 'attention.output.dense')
    .replace(/^attn\.sr/, 'attention.self.sr')
    .replace(/^attn\.norm/, 'attention.self.layer_norm')
    .replace(/^ffn\.layers\.0/, 'mlp.dense1')
    .replace(/^ffn\.layers\.1/, 'mlp.dwconv.dwconv')
    .replace(/^ffn\.layers\.4/, 'mlp.dense2')
  return [[`${at}.${theirs}`, /dense[12]\.weight/.test(theirs) ? asMatrix(tensor) : tensor]]
}

/** The same as SegFormer's own code has them. */
const original: Names = (rest, tensor) => {
  const [, stage = '', place = '', inner = ''] = /^layers\.(\d)\.(\d)\.(.*)$/.exec(rest) ?? []
  const number = Number(stage) + 1
  if (place === '0') return [[`patch_embed${number}.${inner.replace(/^projection/, 'proj')}`, tensor]]
  if (place === '2') return [[`norm${number}.${inner}`, tensor]]
  const [, block = '', layer = ''] = /^(\d+)\.(.*)$/.exec(inner) ?? []
  const at = `block${number}.${block}`
  const packed = /^attn\.attn\.in_proj_(.*)$/.exec(layer)?.[1]
  if (packed !== undefined) {
    const size = (tensor.shape[0] ?? 0) / 3
    return [
      [`${at}.attn.q.${packed}`, rows(tensor, 0, size)],
      [`${at}.attn.kv.${packed}`, rows(tensor, size, 3 * size)],
    ]
  }
  const theirs = layer
    .replace(/^attn\.attn\.out_proj/, 'attn.proj')
    .replace(/^ffn\.layers\.0/, 'mlp.fc1')
    .replace(/^ffn\.layers\.1/, 'mlp.dwconv.dwconv')
    .replace(/^ffn\.layers\.4/, 'mlp.fc2')
  return [[`${at}.${theirs}`, /fc[12]\.weight/.test(theirs) ? asMatrix(tensor) : tensor]]
}

const classifier: Entry = ['classifier.weight', { dtype: 'F32', shape: [7, 16], data: new Float32Array(112) }]

for (const [what, tensors] of [
  [
    'Hugging Face, with a classifier of images',
    (state) => [...backboneOf(state, huggingFace, 'segformer.encoder.'), classifier],
  ],
  ['Hugging Face, the encoder alone', (state) => backboneOf(state, huggingFace)],
  [
    'its own code, with a classifier of images',
    (state) => [...backboneOf(state, original), ['head.weight', classifier[1]]],
  ],
  ['mmsegmentation, the backbone alone', (state) => backboneOf(state, (rest, tensor) => [[rest, tensor]])],
] as [string, (state: State) => Entry[]][]) {
  test(`the backbone of ${what}`, async () => {
    const state = await stateOf(1)
    const model = modelOf(2)
    await loadsBackbone(model, fileOf(tensors(state)), state)
    model.store.destroy()
  })
}

test('a whole model of mmsegmentation', async () => {
  const state = await stateOf(1)
  const path = fileOf([...state].map(([name, tensor]): Entry => [name.replace(/^head\./, 'decode_head.'), tensor]))
  const checkpoint = readCheckpoint(path)
  assert.match(checkpoint.note ?? '', "'decode_head.' read as 'head.'")
  assert.is(checkpoint.names.nameInFile('head.conv_seg.bias'), 'decode_head.conv_seg.bias')
  const { architecture, config: told } = checkpointModel(checkpoint, path)
  assert.equal([architecture, told], ['segformer', config])
  const model = modelOf(2)
  loadCheckpoint(path, model)
  assert.equal(await stateDict(model), state)
  model.store.destroy()
})

test('what is missing is named', async () => {
  const tensors = backboneOf(await stateOf(1), huggingFace, 'segformer.encoder.')
  const without = (pattern: RegExp) => fileOf(tensors.filter(([name]) => !pattern.test(name)))
  assert.match(
    await refusal(() => loadBackbone(modelOf(2), without(/block\.0\.0\.attention\.self\.value\.weight/))),
    /it has .*self\.query\.weight, but lacks segformer\.encoder\.block\.0\.0\.attention\.self\.value\.weight, which/,
  )
  assert.match(
    await refusal(() => loadBackbone(modelOf(2), without(/block\.1\.0\.attention\.self\.(query|key|value)\.bias/))),
    /missing: .*layers\.1\.1\.0\.attn\.attn\.in_proj_bias/,
  )
})

test('heads that are not those of the model are told', async () => {
  const state = await stateOf(1)
  const linear: Entry = [
    'decode_head.linear_c1.proj.weight',
    { dtype: 'F32', shape: [8, 4], data: new Float32Array(32) },
  ]
  const own = fileOf([...backboneOf(state, original, 'backbone.'), linear])
  assert.match(
    await refusal(() => checkpointModel(readCheckpoint(own), own)),
    /its head is that of SegFormer's own code, .* only its backbone can be used, as `pretrained`$/,
  )
  const theirs = fileOf(backboneOf(state, huggingFace, 'segformer.encoder.'))
  assert.match(
    await refusal(() => checkpointModel(readCheckpoint(theirs), theirs)),
    /does not hold a whole SegFormer \(backbone, and a head of convs, fusion_conv and conv_seg\)/,
  )
})

test.run()
