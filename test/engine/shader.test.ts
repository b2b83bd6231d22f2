import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { specialize } from '#dist/engine/shader.js'
import { messageOf } from '../support/messages.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device: opened } = await onDevice()

test('a shader has what is replaced in it', async () => {
  const source = 'const TILE = 4u;\nalias T = f32;\nfn store(i: u32) {\n  if (i > 0u) { }\n}\nfn main() {}\n'
  const changed = specialize(source, {
    constants: { TILE: 8 },
    aliases: { T: 'f16' },
    hooks: { store: 'fn store(i: u32) { }' },
  })
  assert.is(changed, 'enable f16;\nconst TILE = 8;\nalias T = f16;\nfn store(i: u32) { }\nfn main() {}\n')
  assert.is(
    specialize('@compute @workgroup_size(8)\nfn main() {}\n', { subgroupSize: 32 }),
    'enable subgroup_size_control;\n@compute @subgroup_size(32) @workgroup_size(8)\nfn main() {}\n',
  )
  assert.match(await messageOf(() => specialize(source, { constants: { SIDE: 8 } })), /no 'SIDE'/)
  assert.match(await messageOf(() => specialize(source, { hooks: { load: '' } })), /no function 'load'/)
})

test('marked loops are written out, one within the other, by constants as they were replaced', async () => {
  const source = `const TERMS = 4u;
fn main() {
  for (var i = 0u; i < TERMS; i++) { // unrolled
    for (var j = 0u; j < 2u; j++) { // unrolled
      x[i * 2 + j] = index(i);
    }
  }
  for (var k = 0u; k < TERMS; k++) {
    y[k] = 0;
  }
}
`
  const changed = specialize(source, { constants: { TERMS: 2 } })
  const words = changed.match(/x\[[^;]*;/g)
  assert.equal(words, [
    'x[0u * 2 + 0u] = index(0u);',
    'x[0u * 2 + 1u] = index(0u);',
    'x[1u * 2 + 0u] = index(1u);',
    'x[1u * 2 + 1u] = index(1u);',
  ])
  assert.match(changed, /for \(var k = 0u; k < TERMS; k\+\+\) \{\n {4}y\[k\] = 0;/)
  const unknown = source.replace('const TERMS = 4u;', '')
  assert.match(await messageOf(() => specialize(unknown, {})), /declares no 'TERMS' by a number/)
})

const shaderFolder = new URL('../../../shaders/', import.meta.url)
for (const file of readdirSync(shaderFolder, { encoding: 'utf8', recursive: true }).filter((name) =>
  name.endsWith('.wgsl'),
)) {
  const code = readFileSync(new URL(file, shaderFolder), 'utf8')
  const features = [...code.matchAll(/^enable (\w+);/gm)].map(([, name]) =>
    name === 'f16' ? 'shader-f16' : (name ?? '').replaceAll('_', '-'),
  )
  const missing = features.filter((name) => !opened?.gpu.features.has(name))
  const shaderTest = skipUnless(
    missing.length === 0 && opened !== undefined,
    `the adapter has no ${missing.join(' and ') || 'WebGPU'}`,
  )
  shaderTest(`shaders/${file} is valid as it stands`, async () => {
    if (!opened) throw new Error('unreachable: the test is skipped without a device')
    opened.gpu.pushErrorScope('validation')
    const module = opened.gpu.createShaderModule({ label: file, code })
    opened.gpu.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } })
    const error = await opened.wait(opened.gpu.popErrorScope())
    assert.is(error?.message ?? '', '')
  })
}

test.run()
