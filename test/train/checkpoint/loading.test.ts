import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { type DeepLabV3PlusConfig, deepLabV3Plus } from '#dist/models/deeplabv3plus.js'
import { chooseModel, createModel } from '#dist/models/index.js'
import type { ModelConfig, SegmentationModel } from '#dist/models/segmentation.js'
import { type StateTensor, stateDict } from '#dist/models/weights.js'
import { checkpointModel, loadBackbone, readCheckpoint } from '#dist/train/checkpoint/read.js'
import { loadCheckpoint } from '#dist/train/checkpoint/write.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, writeSafetensors } from '#dist/train/io/safetensors.js'
import { Random } from '#dist/train/random.js'
import { messageOf } from '../../support/messages.js'
import { skipUnless } from '../../support/skip.js'
import { smallXception } from '../../support/small-xception.js'

const test = suite('loading')
const device = await open()
const folder = mkdtempSync(join(tmpdir(), 'atrous-loading-'))
test.after(() => {
  device.destroy()
  rmSync(folder, { recursive: true })
})

const small: DeepLabV3PlusConfig = {
  stem: [4, 6, 8],
  planes: [4, 4, 4, 8],
  blocks: [1, 1, 2, 1],
  expansion: 2,
  replace_stride_with_dilation: [false, true, true],
  dilations: [1, 2, 3],
  reduce_channels: 4,
  aspp_channels: 16,
  fuse_channels: 12,
  nclass: 3,
}

/** Runs `body` with a model of its own, with random weights. */
async function withModel<T>(
  config: ModelConfig,
  seed: number,
  body: (model: SegmentationModel) => T | Promise<T>,
): Promise<T> {
  const store = new Store(device, 'loading')
  try {
    return await body(createModel(store, { architecture: 'deeplabv3plus', config }, new Random(seed)))
  } finally {
    store.destroy()
  }
}

const stateOf = (config: ModelConfig, seed: number): Promise<Map<string, StateTensor>> =>
  withModel(config, seed, stateDict)

function fileOf(tensors: Iterable<readonly [string, FileTensor]>, metadata: Record<string, string> = {}): string {
  const path = join(folder, 'weights.safetensors')
  writeSafetensors(path, tensors, metadata)
  return path
}

/** The one line with which `body` ends. */
async function refusal(body: () => unknown): Promise<string> {
  const message = await messageOf(body, UserError)
  assert.not.match(message, /\n/)
  return message
}

const renamed = (state: Map<string, StateTensor>, rename: (name: string) => string | undefined) =>
  [...state].flatMap(([name, tensor]): [string, StateTensor][] => {
    const target = rename(name)
    return target === undefined ? [] : [[target, tensor]]
  })

test('module. before every name is dropped', async () => {
  const state = await stateOf(small, 1)
  const path = fileOf(renamed(state, (name) => `module.${name}`))
  await withModel(small, 2, async (model) => {
    loadCheckpoint(path, model)
    assert.equal(await stateDict(model), state)
  })
})

test('a counter is read as a count, whatever type it has', async () => {
  const state = await stateOf(small, 1)
  const name = 'backbone.bn1.num_batches_tracked'
  const counted = (tensor: FileTensor) =>
    withModel(small, 2, (model) => {
      loadCheckpoint(fileOf(new Map<string, FileTensor>(state).set(name, tensor)), model)
      return model.batchesTracked.get(name)
    })
  for (const [dtype, data, count] of [
    ['F32', Float32Array.of(70_000), 70_000],
    ['F64', Float64Array.of(20_000_001), 20_000_001],
    ['I32', Int32Array.of(20_000_001), 20_000_001],
    ['U8', Uint8Array.of(7), 7],
    ['U64', BigUint64Array.of(2n ** 40n), 2 ** 40],
    // 1.5 as an average of counts gives, and more than half precision holds.
    ['F16', Uint16Array.of(0x3e00), 1],
    ['F16', Uint16Array.of(0x7c00), 65_504],
    ['BF16', Uint16Array.of(0x4000), 2],
  ] as const) {
    for (const shape of [[], [1]]) assert.is(await counted({ dtype, shape, data }), count, dtype)
  }
  for (const [data, pattern] of [
    [Float32Array.of(-1), `counter '${name}' is -1`],
    [Float32Array.of(Number.NaN), `counter '${name}' is NaN`],
  ] as const) {
    const path = fileOf(new Map<string, FileTensor>(state).set(name, { dtype: 'F32', shape: [], data }))
    assert.match(await refusal(() => readCheckpoint(path)), pattern)
  }
})

test('of a file with two networks none is taken, neither whole nor as a backbone', async () => {
  const state = await stateOf(small, 1)
  const two = ['student.', 'teacher.'].flatMap((prefix) => renamed(state, (name) => prefix + name))
  const path = fileOf(two)
  const expected = "it holds 2 networks, with names that begin with 'student.', 'teacher.': save the one that is meant"
  assert.match(await refusal(() => checkpointModel(readCheckpoint(path), path)), expected)
  await withModel(small, 2, async (model) => {
    assert.match(await refusal(() => loadBackbone(model, path)), expected)
  })
})

test('messages name tensors as the file does', async () => {
  const state = await stateOf(small, 1)
  const path = fileOf([
    ...renamed(state, (name) => (name === 'fuse.0.weight' ? undefined : `model.${name}`)),
    ['model.further.weight', { dtype: 'F32', shape: [1], data: new Float32Array(1) }],
  ])
  await withModel(small, 2, async (model) => {
    const message = await refusal(() => loadCheckpoint(path, model))
    assert.match(message, 'missing: model.fuse.0.weight; unexpected: model.further.weight')
  })
  const other = fileOf(renamed(state, (name) => (name.startsWith('backbone.') ? `net.${name}` : `net.decode_${name}`)))
  assert.match(
    await refusal(() => checkpointModel(readCheckpoint(other), other)),
    /does not hold a whole .*; its tensors are those of net\.backbone, net\.decode_head, /,
  )
})

const lone = (name: string) => (name.startsWith('backbone.') ? name.slice('backbone.'.length) : undefined)

for (const [what, rename] of [
  ['without the prefix', lone],
  ['with the prefix', (name: string) => (lone(name) === undefined ? undefined : name)],
  ['within a whole model', (name: string) => name],
] as const) {
  test(`a backbone ${what} fills the backbone, and nothing else`, async () => {
    const state = await stateOf(small, 1)
    const before = await stateOf(small, 2)
    const fc: StateTensor = { dtype: 'F32', shape: [2], data: new Float32Array(2) }
    const prefix = what === 'without the prefix' ? '' : 'backbone.'
    const path = fileOf([...renamed(state, rename), [`${prefix}fc.weight`, fc]])
    await withModel(small, 2, async (model) => {
      assert.match(loadBackbone(model, path), path)
      for (const [name, { data }] of await stateDict(model)) {
        const source = name.startsWith('backbone.') ? state : before
        assert.equal(data, source.get(name)?.data, name)
      }
    })
  })
}

test('a ResNet with one 7x7 convolution in front is diagnosed', async () => {
  const state = await stateOf(small, 1)
  const stem: StateTensor = { dtype: 'F32', shape: [64, 3, 7, 7], data: new Float32Array(64 * 147) }
  const rest = renamed(state, (name) => (/^backbone\.(?!conv1)/.test(name) ? lone(name) : undefined))
  const path = fileOf([['conv1.weight', stem], ...rest])
  await withModel(small, 2, async (model) => {
    const message = await refusal(() => loadBackbone(model, path))
    assert.match(message, `pretrained ${path}: it is a ResNet with one 7x7 convolution`)
    assert.match(message, 'deep stem of three 3x3')
    assert.match(message, 'missing: conv1.0.weight')
    assert.match(message, 'unexpected: conv1.weight')
  })
  assert.match(await refusal(() => checkpointModel(readCheckpoint(path), path)), /7x7/)
})

test('the backbone of another family is diagnosed', async () => {
  const residual = await stateOf(small, 1)
  const separable = await stateOf(smallXception, 1)
  const ofResNet = /its backbone is of the kind of resnet50 or resnet101, where the model has that of xception/
  const ofXception = /its backbone is of the kind of xception, where the model has that of resnet50 or resnet101/
  for (const [state, config, reason] of [
    [residual, smallXception, ofResNet],
    [separable, small, ofXception],
  ] as const) {
    await withModel(config, 2, async (model) => {
      assert.match(await refusal(() => loadCheckpoint(fileOf(state), model)), reason)
      assert.match(await refusal(() => loadBackbone(model, fileOf(renamed(state, lone)))), reason)
    })
  }
})

test('a backbone of Xception: counters and what else the reference drops is left aside, and tensors may be missing', async () => {
  const state = await stateOf(smallXception, 1)
  for (const [name, tensor] of state) if (tensor.dtype === 'I64') tensor.data[0] = name.length > 0 ? 7n : 0n
  const before = await stateOf(smallXception, 2)
  const other: StateTensor = { dtype: 'F32', shape: [2], data: new Float32Array(2) }
  const absent = 'backbone.conv5.bn2.bias'
  const file = (extra: string) =>
    fileOf([
      ...renamed(state, (name) => (name === absent ? undefined : lone(name))),
      ['bn1.itr', other],
      [extra, other],
    ])
  await withModel(smallXception, 2, async (model) => {
    assert.match(
      loadBackbone(model, file('tmp')),
      /; what it lacks keeps its initial values: 1 of the model's, such as backbone\.conv5\.bn2\.bias$/,
    )
    for (const [name, { dtype, data }] of await stateDict(model)) {
      const source = name.startsWith('backbone.') && name !== absent ? state : before
      assert.equal(data, dtype === 'I64' ? BigInt64Array.of(0n) : source.get(name)?.data, name)
    }
    assert.match(await refusal(() => loadBackbone(model, file('further.weight'))), 'unexpected: further.weight')
    assert.match(await refusal(() => loadBackbone(model, fileOf([['fc.weight', other]]))), 'missing: conv1.weight')
  })
})

test('output stride and momentum of an Xception are told by the metadata', async () => {
  const config = { ...smallXception, output_stride: 8, backbone_bn_momentum: 0.01 } as const
  const state = await stateOf(config, 1)
  const of = (metadata: Record<string, string>) => {
    const path = fileOf(state, metadata)
    return checkpointModel(readCheckpoint(path), path).config
  }
  assert.equal(of({ model: JSON.stringify(config) }), config)
  const usual = { output_stride: 16, backbone_bn_momentum: 0.0003, dilations: [6, 12, 18] }
  assert.equal(of({}), { ...config, ...usual })
})

test('another number of classes, and other widths, are diagnosed', async () => {
  const path = fileOf(await stateOf(small, 1))
  await withModel({ ...small, nclass: 5, blocks: [1, 1, 1, 1] }, 2, async (model) => {
    const message = await refusal(() => loadCheckpoint(path, model))
    assert.match(message, 'it was trained with blocks [1,1,2,1] instead of [1,1,1,1], nclass 3 instead of 5')
    assert.match(message, 'unexpected: backbone.layer3.1.conv1.weight')
    assert.match(message, 'of another shape: classifier.weight [3, 12, 1, 1] instead of [5, 12, 1, 1]')
    assert.match(message, 'choose the configuration with which it was trained')
  })
})

test('weights that are not numbers are refused, and nothing is loaded', async () => {
  const state = await stateOf(small, 1)
  const broken = state.get('fuse.0.weight')
  assert.ok(broken?.dtype === 'F32')
  broken.data[7] = Number.NaN
  const path = fileOf(state)
  await withModel(small, 2, async (model) => {
    assert.match(
      await refusal(() => loadCheckpoint(path, model)),
      "tensor 'fuse.0.weight' holds values that are not finite",
    )
    assert.equal(await stateDict(model), await stateOf(small, 2))
  })
})

test('the model of a checkpoint is told by its shapes and its metadata', async () => {
  const state = await stateOf(small, 1)
  const { dilations, replace_stride_with_dilation, ...widths } = small
  assert.equal(deepLabV3Plus.inferConfig(state).widths, widths)
  const of = (metadata: Record<string, string>) => {
    const path = fileOf(state, metadata)
    const { config, hasGeometry } = checkpointModel(readCheckpoint(path), path)
    return { config, hasGeometry }
  }
  const plain = { ...small, multi_grid: [1, 1, 1] }
  assert.equal(of({ model: JSON.stringify(small) }), { config: plain, hasGeometry: true })
  const usual = { ...plain, dilations: [6, 12, 18], replace_stride_with_dilation: [false, false, true] }
  for (const model of ['{', 'null', '{"dilations": [1, 2]}', JSON.stringify({ ...small, dilations: [1, 2, 1e9] })]) {
    assert.equal(of({ model }), { config: usual, hasGeometry: false }, model)
  }
  // What the metadata claim of widths is of no account.
  assert.equal(of({ model: JSON.stringify({ ...small, nclass: 2 ** 40 }) }), { config: plain, hasGeometry: true })
  assert.match(
    await refusal(() => of({ architecture: '"unet"' })),
    /its architecture is none of those that there are: deeplabv3plus/,
  )
  const path = fileOf([...state].filter(([name]) => !name.startsWith('head.')))
  assert.match(await refusal(() => checkpointModel(readCheckpoint(path), path)), /does not hold a whole DeepLabV3\+/)
})

test('full-size models are told by their shapes', () => {
  for (const [backbone, nclass] of [
    ['resnet50', 21],
    ['resnet101', 21],
    ['xception', 81],
  ] as const) {
    const { shapes } = JSON.parse(readFileSync(`test/fixtures/${backbone}.json`, 'utf8')) as {
      shapes: Record<string, number[]>
    }
    const state = new Map(Object.entries(shapes).map(([name, shape]) => [name, { shape }]))
    const { config } = chooseModel({ backbone, nclass })
    const { widths, geometry } = deepLabV3Plus.inferConfig(state)
    assert.equal({ ...widths, ...geometry }, config)
    const shown = Object.keys(config).filter((key) => !Object.hasOwn(geometry, key))
    assert.equal(Object.keys(widths).sort(), shown.sort())
  }
})

const golden = '../shared/golden'
const goldenTest = skipUnless(existsSync(golden), `${golden} is absent`, test)

goldenTest('a checkpoint of PyTorch loads as the same safetensors do', async () => {
  const whole = join(golden, 'checkpoint/module_prefix.pth')
  const { config } = checkpointModel(readCheckpoint(whole), whole)
  const load = (path: string) =>
    withModel(config as DeepLabV3PlusConfig, 1, (model) => {
      loadCheckpoint(path, model)
      return stateDict(model)
    })
  assert.equal(await load(whole), await load(join(golden, 'tiny-prevmatch/pascal-like/final.safetensors')))
})

test('a header of 2^60 bytes, overlapping ranges and a folder are refused', async () => {
  const path = join(folder, 'bad.safetensors')
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(2n ** 60n)
  writeFileSync(path, Buffer.concat([length, Buffer.from('{}')]))
  assert.match(await refusal(() => readCheckpoint(path)), /header claims 1152921504606846976 bytes/)
  const entry = (from: number) => ({ dtype: 'F32', shape: [2], data_offsets: [from, from + 8] })
  const header = Buffer.from(JSON.stringify({ a: entry(0), b: entry(4) }))
  length.writeBigUInt64LE(BigInt(header.length))
  writeFileSync(path, Buffer.concat([length, header, Buffer.alloc(12)]))
  assert.match(await refusal(() => readCheckpoint(path)), /overlaps/)
  assert.match(await refusal(() => readCheckpoint(folder)), /not a file/)
  assert.match(await refusal(() => readCheckpoint(join(folder, 'none.pth'))), /cannot open .*none\.pth/)
})

test.run()
