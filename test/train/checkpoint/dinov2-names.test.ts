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
import { type StateTensor, stateDict } from '#dist/models/weights.js'
import { checkpointModel, loadBackbone, readCheckpoint } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, writeSafetensors } from '#dist/train/io/safetensors.js'
import { Random } from '#dist/train/random.js'
import { messageOf } from '../../support/messages.js'
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

type Entry = readonly [string, FileTensor]
type Names = (rest: string, tensor: StateTensor) => Entry[]

/** The values of a model, biases and all that are constants at first drawn as well. */
async function stateOf(seed: number, config?: object): Promise<Map<string, StateTensor>> {
  const random = new Random(seed, 1)
  const state = await stateDict(modelOf(seed, config))
  for (const { dtype, data } of state.values()) {
    if (dtype === 'F32') for (const i of data.keys()) data[i] = random.uniform()
  }
  return state
}

const fileOf = (tensors: Iterable<Entry>): string => {
  const path = join(folder, 'weights.safetensors')
  writeSafetensors(path, tensors)
  return path
}

const official: Names = (rest, tensor) => [[rest, tensor]]

/** A third of a tensor's rows. */
function third({ shape, data }: StateTensor, part: number): FileTensor {
  const [all = 0, ...rest] = shape
  const length = data.length / 3
  return {
    dtype: 'F32',
    shape: [all / 3, ...rest],
    data: (data as Float32Array).slice(part * length, (part + 1) * length),
  }
}

const huggingFace: Names = (rest, tensor) => {
  const [, block = '', layer = ''] = /^blocks\.(\d+)\.(.*)$/.exec(rest) ?? []
  const at = `encoder.layer.${block}`
  const packed = /^attn\.qkv\.(.*)$/.exec(layer)?.[1]
  if (packed !== undefined) {
    const parts = ['query', 'key', 'value']
    return parts.map((part, i) => [`${at}.attention.attention.${part}.${packed}`, third(tensor, i)])
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

const backboneOf = (state: ReadonlyMap<string, StateTensor>, names: Names, prefix = ''): Entry[] =>
  [...state].flatMap(([name, tensor]) =>
    name.startsWith('backbone.')
      ? names(name.slice('backbone.'.length), tensor).map(([theirs, part]): Entry => [prefix + theirs, part])
      : [],
  )

const classifier: Entry = ['classifier.weight', { dtype: 'F32', shape: [7, 24], data: new Float32Array(168) }]

for (const [what, tensors] of [
  ['the official code', (state) => backboneOf(state, official)],
  ['Hugging Face', (state) => backboneOf(state, huggingFace)],
  ['Hugging Face, with a classifier of images', (state) => [...backboneOf(state, huggingFace, 'dinov2.'), classifier]],
  [
    'a whole model on several devices',
    (state) => [...state].map(([name, tensor]): Entry => [`module.${name}`, tensor]),
  ],
] as [string, (state: Map<string, StateTensor>) => Entry[]][]) {
  test(`the backbone of ${what}`, async () => {
    const state = await stateOf(1)
    const model = modelOf(2)
    const before = await stateDict(model)
    loadBackbone(model, fileOf(tensors(state)))
    for (const [name, { data }] of await stateDict(model)) {
      const expected = (name.startsWith('backbone.') ? state : before).get(name)?.data
      assert.equal(data, expected, name)
    }
    model.store.destroy()
  })
}

const refusal = async (body: () => unknown): Promise<string> => {
  const message = await messageOf(body, UserError)
  assert.not.match(message, /\n/)
  return message
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
