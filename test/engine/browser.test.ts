// How a page opens a device, in pages that are imitated: what is missing is said, with the remedy.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { NoAdapterError, open } from '#dist/engine/browser.js'
import { AtrousError } from '#dist/engine/error.js'

/** What `open` throws in a page that has these globals. */
async function refusal(page: Readonly<Record<string, unknown>>): Promise<string> {
  const before = Object.keys(page).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const)
  for (const [name, value] of Object.entries(page)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
  }
  try {
    await open()
  } catch (error) {
    assert.instance(error, NoAdapterError)
    assert.instance(error, AtrousError)
    assert.is((error as Error).name, 'NoAdapterError')
    return (error as Error).message
  } finally {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor)
      else Reflect.deleteProperty(globalThis, name)
    }
  }
  throw new Error('a device was opened')
}

test('an origin that is not secure', async () => {
  const page = { isSecureContext: false, location: { origin: 'http://192.168.1.2:8000' }, navigator: {} }
  assert.match(await refusal(page), /secure contexts alone, and http:\/\/192.168.1.2:8000 is none: serve it by https/)
})

test('a browser without WebGPU', async () => {
  assert.match(await refusal({ isSecureContext: true, navigator: {} }), /no WebGPU: take a recent Chrome/)
})

test('a browser that gives no adapter', async () => {
  const asked: unknown[] = []
  const requestAdapter = async (options: unknown) => {
    asked.push(options)
    return null
  }
  assert.match(await refusal({ isSecureContext: true, navigator: { gpu: { requestAdapter } } }), /gives no adapter: /)
  assert.equal(asked, [{}])
})

test.run()
