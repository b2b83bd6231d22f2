// What doctor says of devices, and that its tests of kernels find a driver that computes wrongly.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { describeDevices, describeHalfStores, matrixRows } from '#dist/doctor/adapters.js'
import { difference, testKernels } from '#dist/doctor/kernel-tests.js'
import { pciDevices } from '#dist/doctor/pci.js'
import { products } from '#dist/doctor/products.js'
import { findAdapter } from '#dist/engine/node.js'
import { openDevice } from '#dist/engine/open-device.js'
import { imitate } from '../support/imitated-adapter.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

test('devices of one name are counted, and how a process gets another of them is said', () => {
  const card = { backend: 'vulkan', name: 'NVIDIA H100' }
  const pci = [{ address: '0000:01:00.0', id: '10de:2331', driver: undefined }]
  const lines = describeDevices([card, card, { backend: 'opengles', name: 'llvmpipe' }], pci)
  assert.equal(lines.slice(0, 3), [
    '  2 times NVIDIA H100 (Vulkan)',
    '  llvmpipe (opengles)',
    '  PCI 0000:01:00.0: 10de:2331, no driver',
  ])
  assert.match(lines.at(-1) ?? '', /^ {2}2 devices are called NVIDIA H100 \(Vulkan\): WebGPU opens the first/)
  assert.is(describeDevices([card], []).filter((line) => line.includes('are called')).length, 0)
})

test('displays are found where Linux lists them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pci-'))
  try {
    const devices = { '0000:00:02.0': '0x030000', '0000:01:00.0': '0x030200', '0000:00:1f.0': '0x060100' }
    for (const [address, kind] of Object.entries(devices)) {
      mkdirSync(join(folder, address))
      for (const [name, value] of Object.entries({ class: kind, vendor: '0x10de', device: '0x2684' })) {
        writeFileSync(join(folder, address, name), `${value}\n`)
      }
    }
    symlinkSync('/drivers/nvidia', join(folder, '0000:01:00.0', 'driver'))
    assert.equal(pciDevices(folder), [
      { address: '0000:00:02.0', id: '10de:2684', driver: undefined },
      { address: '0000:01:00.0', id: '10de:2684', driver: 'nvidia' },
    ])
  } finally {
    rmSync(folder, { recursive: true })
  }
  assert.equal(pciDevices(folder), [])
})

test('shapes of matrices are listed by their types, and stores of f16 by their faults', () => {
  const shape = { M: 8, N: 8, K: 8 }
  assert.equal(matrixRows([]), [['matrices of f16, added up in f32', 'none']])
  assert.equal(
    matrixRows([
      { ...shape, factors: 'f32', sums: 'f32' },
      { ...shape, factors: 'f16', sums: 'f16' },
    ]),
    [
      ['matrices of f16, added up in f32', 'none'],
      ['matrices of f32, added up in f32', '8x8x8'],
      ['matrices of f16, added up in f16', '8x8x8'],
    ],
  )
  const exact = { rounds: true, overflows: true, subnormals: true }
  assert.is(describeHalfStores(exact, { half: true }), 'exact')
  assert.match(describeHalfStores({ ...exact, rounds: false }, { half: true }), /^numbers are not rounded .*: kernels/)
  assert.is(describeHalfStores(undefined, { half: false }), 'none')
})

test('the reference of products, by hand', () => {
  const data = { x: Float32Array.of(1, 2, 3, 4), w: Float32Array.of(1, 10, 100, 1000), dy: Float32Array.of(5) }
  const { y, dx, dw } = products({ x: [1, 2, 2, 1], w: [2, 2, 1, 1] }, data)
  assert.equal([[...y], [...dx], [...dw]], [[4321], [5, 50, 500, 5000], [5, 10, 15, 20]])
  assert.is(difference([1, Number.NaN], [1, Number.NEGATIVE_INFINITY], false), undefined)
  assert.is(difference([1, 2], [1, Number.NEGATIVE_INFINITY], false), 'element 1 is 2, not -Infinity')
  assert.is(difference([Number.NaN], [1], true), 'element 0 is NaN, not 1')
  assert.is(difference([1 + 2 ** -11], [1], true), undefined)
  assert.is(difference([1 + 2 ** -11], [1], false), `element 0 is ${1 + 2 ** -11}, not 1`)
})

deviceTest('a driver that computes wrongly is found, with the kernel and the element', async () => {
  const { adapter, summary } = await findAdapter()
  // The last row of a matrix product's or convolution's map, of 65 or fewer, gets lost.
  const compiler = (source: string) =>
    source.replace(/^(fn store\(pixel: u32.*\{)$/m, '$1\n  if (pixel == 64u) { return; }')
  const device = await openDevice(imitate(adapter, { compiler }), summary)
  const { right, wrong } = await testKernels(device, false)
  device.destroy()
  assert.ok(wrong.length > 0 && right > 0, `${right} right, ${wrong.length} wrong`)
  assert.ok(
    wrong.some((line) => /^matrix product, kernel '.+': element 4288 is 0, not/.test(line)),
    wrong.join('\n'),
  )
})

test.run()
