// Which backend an adapter is taken from, where several offer it: no machine here has more than one.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type AdapterSummary, type Backend, showAdapter } from '#dist/engine/adapter.js'
import { backendsOf, isListedAs, orderByBackend, parseDeviceList } from '#dist/engine/backend.js'
import { findAdapter, listDevices } from '#dist/engine/node.js'
import { messageOf } from '../support/messages.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

interface Offered {
  readonly units?: boolean
  readonly software?: boolean
}

function offer(backend: Backend, device: string, { units = false, software = false }: Offered = {}) {
  const summary: AdapterSummary = { vendor: 'v', architecture: '', device, driver: 'd', software, backend }
  return { summary, matrixUnits: units }
}

const order = (...offers: ReturnType<typeof offer>[]): string[] =>
  orderByBackend(offers).map(({ summary }) => `${summary.backend} ${summary.device}`)

test('on Windows Vulkan is kept where it offers matrix units, else Direct3D is taken', () => {
  assert.equal(backendsOf('win32'), ['vulkan', 'd3d12'])
  const with_ = { units: true }
  assert.equal(order(offer('vulkan', 'rtx', with_), offer('d3d12', 'rtx')), ['vulkan rtx', 'd3d12 rtx'])
  assert.equal(order(offer('vulkan', 'gtx'), offer('d3d12', 'gtx')), ['d3d12 gtx', 'vulkan gtx'])
  assert.equal(order(offer('vulkan', 'rtx', with_), offer('d3d12', 'rtx', with_)), ['vulkan rtx', 'd3d12 rtx'])
  assert.equal(order(offer('d3d12', 'card')), ['d3d12 card'])
})

test('a GPU in any backend comes before what runs on the CPU, and each backend keeps its own order', () => {
  const software = { software: true }
  assert.equal(order(offer('vulkan', 'gpu'), offer('d3d12', 'warp', software)), ['vulkan gpu', 'd3d12 warp'])
  assert.equal(order(offer('vulkan', 'lavapipe', software), offer('d3d12', 'gpu')), ['d3d12 gpu', 'vulkan lavapipe'])
  assert.equal(
    order(
      offer('vulkan', 'fast', { units: true }),
      offer('vulkan', 'small'),
      offer('d3d12', 'fast'),
      offer('d3d12', 'small'),
    ),
    ['vulkan fast', 'vulkan small', 'd3d12 fast', 'd3d12 small'],
  )
  // The units of a second GPU do not count: it is not the one that is taken.
  assert.equal(order(offer('vulkan', 'fast'), offer('vulkan', 'other', { units: true }), offer('d3d12', 'fast')), [
    'd3d12 fast',
    'vulkan fast',
    'vulkan other',
  ])
})

test('elsewhere there is one backend', () => {
  assert.equal([backendsOf('linux'), backendsOf('darwin')], [['vulkan'], ['metal']])
  assert.equal(order(offer('vulkan', 'a'), offer('vulkan', 'b', { units: true })), ['vulkan a', 'vulkan b'])
})

test('a list of devices is read, identical ones each by itself', () => {
  const message = `no suitable backends found
Available adapters:
 * backend: 'vulkan', name: 'NVIDIA H100 PCIe'
 * backend: 'vulkan', name: 'NVIDIA H100 PCIe'
 * backend: 'vulkan', name: 'llvmpipe (LLVM 15.0.6, 256 bits)'
 * backend: 'opengles', name: 'Bob's GPU'`
  const listed = parseDeviceList(message)
  assert.equal(
    listed.map(({ backend, name }) => `${backend}: ${name}`),
    [
      'vulkan: NVIDIA H100 PCIe',
      'vulkan: NVIDIA H100 PCIe',
      'vulkan: llvmpipe (LLVM 15.0.6, 256 bits)',
      "opengles: Bob's GPU",
    ],
  )
  const { summary } = offer('vulkan', 'llvmpipe-llvm-15-0-6-256-bits-')
  assert.equal(
    listed.map((each) => isListedAs(summary, each)),
    [false, false, true, false],
  )
})

test('an adapter on one line has its backend where that is known', () => {
  const { summary } = offer('d3d12', 'rtx')
  assert.is(showAdapter(summary), 'rtx (d; Direct3D 12)')
  const { backend: _, ...unknown } = summary
  assert.is(showAdapter(unknown), 'rtx (d)')
})

deviceTest('what Dawn lists holds the adapter in use, and --gpu finds it by driver or backend', async (device) => {
  const listed = await listDevices()
  assert.ok(
    listed.some((each) => isListedAs(device.adapter, each)),
    JSON.stringify(listed),
  )
  const { backend = '', driver } = device.adapter
  for (const gpu of [backend, driver, driver.toUpperCase()]) {
    assert.equal((await findAdapter({ gpu })).summary, device.adapter)
  }
  assert.match(
    await messageOf(() => findAdapter({ gpu: 'no such card' })),
    /^no adapter is named 'no such card'; there is: /,
  )
})

test.run()
