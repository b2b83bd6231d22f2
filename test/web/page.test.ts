// The web page in Chromium, on SwiftShader where there is no GPU. What takes minutes there is in test/soak/web.soak.ts.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decode, encode } from 'fast-png'
import type { Browser, Download, Page } from 'playwright-core'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { classNames, palette } from '#dist/demo/classes.js'
import { scene } from '#dist/demo/scenes.js'
import { tracingDevice } from '#dist/engine/dry-device.js'
import { elements } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { stateShapes } from '#dist/models/weights.js'
import { metadataOf, encode as metadataText } from '#dist/train/checkpoint/contents.js'
import { parseCheckpoint } from '#dist/train/checkpoint/parse.js'
import { sourceOf } from '#dist/train/io/byte-source.js'
import { type FileTensor, safetensorsParts } from '#dist/train/io/safetensors-format.js'
import { Random } from '#dist/train/random.js'
import { browserPath, openBrowser } from '../support/browser.js'
import { skipUnless } from '../support/skip.js'
import { smallDinoV2 } from '../support/small-dinov2.js'
import { countTimers, drop, type Served, servePage, waitForResult } from './serve.js'

const pageTest = skipUnless(browserPath !== undefined, 'there is no Chromium')

let served: Served
let browser: Browser
let page: Page
const folder = mkdtempSync(join(tmpdir(), 'atrous-page-'))
/** What went wrong in the page itself. */
const faults: string[] = []

async function open(): Promise<Page> {
  const opened = await browser.newPage({ viewport: { width: 1100, height: 800 } })
  // On a loaded machine SwiftShader takes its time.
  opened.setDefaultTimeout(120_000)
  opened.on('pageerror', (error) => faults.push(String(error)))
  await opened.goto(served.url)
  await waitForResult(opened)
  return opened
}

test.before(async () => {
  if (!browserPath) return
  served = await servePage()
  browser = await openBrowser(true)
  page = await open()
})

test.after(async () => {
  await browser?.close()
  await served?.end()
  rmSync(folder, { recursive: true })
})

const text = (id: string) => page.locator(`#${id}`).innerText()

async function saved(download: Download, name: string): Promise<string> {
  const path = join(folder, name)
  await download.saveAs(path)
  return path
}

async function downloaded(button: string, name: string): Promise<string> {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(`#${button}`)])
  return saved(download, name)
}

pageTest('segments a painted scene in WebAssembly where the adapter is software, and says so', async () => {
  assert.match(await text('notice'), /software/)
  assert.match(await text('try-line'), /^\d+(\.\d)? ms for the network on WebAssembly/)
  const legend = await page.locator('#try-legend li').allInnerTexts()
  assert.is(legend.length, 6)
  const shares = legend.map((line) => Number(/([\d.]+) %/.exec(line)?.[1]))
  assert.ok(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 100) < 0.5, legend.join('; '))
  const box = await page.locator('#try-canvas').boundingBox()
  await page.mouse.move((box?.x ?? 0) + (box?.width ?? 0) / 2, (box?.y ?? 0) + 30)
  assert.match(await text('try-under'), /^sky · \d+ %$/)
  await page.focus('#try-canvas')
  await page.keyboard.press('Shift+ArrowDown')
  assert.match(await text('try-under'), /^\w+ · \d+ %$/)
})

pageTest('takes a dropped picture, and gives its mask and the network', async () => {
  const size = 80
  const data = scene(9, 4, size).image.subarray(0, size * 60 * 3)
  await drop(page, 'a photo.png', 'image/png', encode({ data, width: size, height: 60, channels: 3 }))
  await page.waitForSelector('#try-samples button[title="a photo.png"][aria-pressed="true"]')
  const mask = decode(readFileSync(await downloaded('try-mask', 'mask.png')))
  assert.equal([mask.width, mask.height, mask.channels, mask.depth], [size, 60, 1, 8])
  assert.ok(mask.data.every((label) => label < 6))
  assert.ok(new Set(mask.data).size > 1)
  const onnx = readFileSync(await downloaded('try-onnx', 'network.onnx'))
  assert.ok(onnx.includes('class_names') && onnx.length > 100_000)
})

pageTest('refuses damaged and hostile files in the words of the commands', async () => {
  const weights = readFileSync('web/weights/scenes.safetensors')
  const claim = Buffer.from(weights)
  claim.writeBigUInt64LE(1n << 50n)
  const files: Record<string, Buffer> = {
    'cut.safetensors': weights.subarray(0, 100_000),
    'claim.safetensors': claim,
    'picture.safetensors': Buffer.from(encode({ data: new Uint8Array(3), width: 1, height: 1, channels: 3 })),
    // Of pickle: calls os.system.
    'calls.pth': Buffer.from("cos\nsystem\n(S'touch hostile'\ntR."),
  }
  for (const [name, bytes] of Object.entries(files)) {
    let message = ''
    try {
      parseCheckpoint(sourceOf(bytes, name))
    } catch (error) {
      message = (error as Error).message
    }
    assert.match(message, name)
    await drop(page, name, '', bytes)
    await page.waitForFunction(`document.getElementById('toast').textContent.startsWith(${JSON.stringify(name)})`)
    assert.is(await text('toast'), message)
  }
  await drop(page, 'broken.png', 'image/png', Buffer.from('no picture'))
  await page.waitForFunction("document.getElementById('toast').textContent.startsWith('broken.png')")
  assert.match(await text('toast'), /is no picture that this browser can decode/)
  assert.match(await text('try-model'), /^scenes\.safetensors: /, 'the network is the one of before')
})

pageTest('keeps pictures that are dropped beside as unlabeled ones', async () => {
  await page.click('#tab-correct')
  const bytes = encode({ data: scene(9, 5, 32).image, width: 32, height: 32, channels: 3 })
  await drop(page, 'one more.png', 'image/png', bytes, 'correct-zone')
  await page.waitForFunction(
    "/^1 unlabeled: one more.png$/.test(document.getElementById('correct-unlabeled-line').textContent)",
  )
  assert.is(await page.locator('#correct-method').inputValue(), 'prevmatch')
  await page.click('#correct-forget')
  assert.is(await page.locator('#correct-method').inputValue(), 'supervised')
  await page.click('#tab-try')
})

const painted = async () => Number(await page.locator('#correct-canvas').getAttribute('data-painted'))

pageTest('paints with brush, fill and keyboard, and goes back', async () => {
  await page.click('#try-samples button:first-child')
  await page.selectOption('#try-side', '64')
  await page.click('#tab-correct')
  await page.waitForSelector('#correct-busy', { state: 'hidden' })
  const box = await page.locator('#correct-canvas').boundingBox()
  const [x, y] = [(box?.x ?? 0) + (box?.width ?? 0) / 2, (box?.y ?? 0) + (box?.height ?? 0) / 2]
  await page.mouse.move(x - 40, y)
  await page.mouse.down()
  await page.mouse.move(x + 40, y, { steps: 4 })
  await page.mouse.up()
  const stroke = await painted()
  assert.ok(stroke > 20 && stroke < 400, `${stroke}`)
  await page.click('#correct-undo-stroke')
  assert.is(await painted(), 0)
  await page.focus('#correct-canvas')
  for (const key of ['2', 'f', 'Space']) await page.keyboard.press(key)
  assert.match(await text('correct-line'), /^fill: ground; under the pointer: ground/)
  const filled = await painted()
  assert.ok(filled > 0)
  for (const key of ['e', 'Space']) await page.keyboard.press(key)
  assert.ok((await painted()) < filled)
})

pageTest('learns three steps from what is painted, and saves weights that predict.js takes', async () => {
  const steps = page.locator('#correct-steps')
  await steps.fill('3')
  const [worker] = page.workers()
  await worker?.evaluate(countTimers)
  await page.click('#correct-learn')
  await page.waitForFunction("/^learned|^$/.test(document.getElementById('correct-learned').textContent)", null, {
    timeout: 120_000,
  })
  assert.match(await text('correct-learned'), /^learned 3 steps by supervised/)
  assert.equal(await worker?.evaluate('asked'), [], 'in a hidden tab timers and frames wait')
  const path = await downloaded('correct-save', 'corrected.safetensors')
  assert.not.equal(readFileSync(path), readFileSync('web/weights/scenes.safetensors'))
  const image = join(folder, 'scene.png')
  writeFileSync(image, encode({ data: scene(1, 1, 48).image, width: 48, height: 48, channels: 3 }))
  const args = ['dist/predict.js', '--images', image, '--ckpt-path', path, '--out', join(folder, 'out'), '--no-tune']
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  assert.is(decode(readFileSync(join(folder, 'out/masks/scene.png'))).width, 48)
  await page.click('#correct-undo')
  await page.waitForFunction("document.getElementById('correct-learned').textContent === 'back to the weights before'")
  const back = await downloaded('correct-save', 'back.safetensors')
  assert.equal(readFileSync(back), readFileSync('web/weights/scenes.safetensors'))
})

pageTest('the head alone learns, by what is painted', async () => {
  const scope = page.locator('#correct-scope')
  assert.is(await scope.inputValue(), 'whole', 'the network of the page has no transformer')
  await scope.selectOption('head')
  assert.ok(await page.locator('#correct-method').isDisabled())
  await page.locator('#correct-steps').fill('1')
  await page.click('#correct-learn')
  await page.waitForFunction("/^learned 1/.test(document.getElementById('correct-learned').textContent)", null, {
    timeout: 120_000,
  })
  assert.match(await text('correct-learned'), /by the head alone/)
  await page.click('#correct-undo')
  await page.waitForFunction("document.getElementById('correct-learned').textContent === 'back to the weights before'")
  await scope.selectOption('whole')
  assert.not.ok(await page.locator('#correct-method').isDisabled())
})

pageTest('forgets what was painted with other classes, and does not undo to it', async () => {
  assert.ok((await painted()) > 0)
  const weights = readFileSync('web/weights/scenes.safetensors').toString('latin1')
  // Without the hash of the file, which is no longer that of its contents.
  const renamed = weights.replace('sky', 'SKY').replace('atrous.sha256', 'another-entry')
  await drop(page, 'renamed.safetensors', '', Buffer.from(renamed, 'latin1'))
  await page.waitForFunction("/^renamed/.test(document.getElementById('try-model').textContent)")
  assert.is(await painted(), 0)
  await page.click('#tab-correct')
  await page.click('#correct-undo-stroke')
  assert.is(await painted(), 0)
  await page.click('#tab-try')
  await page.click('#try-reset')
  await page.waitForFunction("/^scenes/.test(document.getElementById('try-model').textContent)")
  await page.waitForSelector('#try-busy', { state: 'hidden' })
})

/** A file of weights of a narrow DINOv2 with a DPT head, for the classes of the scenes. */
function tinyDinoV2(): Buffer {
  const spec = { architecture: 'dpt', config: { ...smallDinoV2, nclass: classNames.length } }
  const random = new Random(5)
  const shapes = stateShapes(createModel(new Store(tracingDevice(), 'model'), spec))
  const tensors = [...shapes].map(([name, shape]): [string, FileTensor] => {
    const data = Float32Array.from({ length: elements(shape) }, () => random.uniform(-0.3, 0.3))
    return [name, { dtype: 'F32', shape: [...shape], data }]
  })
  const info = { class_names: classNames, palette, ...metadataOf(spec) }
  return Buffer.concat(safetensorsParts(tensors, metadataText(info)))
}

pageTest('a DINOv2, whose graph depends on the size of pictures, is tried, exported, corrected and saved', async () => {
  await page.click('#tab-try')
  await drop(page, 'tiny-dinov2.safetensors', '', tinyDinoV2())
  await page.waitForFunction("/^tiny-dinov2/.test(document.getElementById('try-model').textContent)")
  await page.waitForSelector('#try-busy', { state: 'hidden' })
  assert.match(await text('try-model'), /^tiny-dinov2.safetensors: dpt, 6 classes/)
  for (const side of ['96', '64']) {
    await page.evaluate("document.getElementById('try-line').textContent = ''")
    await page.selectOption('#try-side', side)
    await page.waitForFunction("document.getElementById('try-line').textContent !== ''")
    assert.match(await text('try-line'), /WebAssembly/)
  }
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#try-onnx')])
  assert.match(download.suggestedFilename(), /^tiny-dinov2-64x\d+\.onnx$/)
  await page.click('#tab-correct')
  await page.waitForSelector('#correct-busy', { state: 'hidden' })
  await page.focus('#correct-canvas')
  for (const key of ['b', '2', 'Space']) await page.keyboard.press(key)
  assert.ok((await painted()) > 0)
  await page.locator('#correct-steps').fill('1')
  await page.click('#correct-learn')
  await page.waitForFunction("/^learned|^$/.test(document.getElementById('correct-learned').textContent)")
  assert.match(await text('correct-learned'), /^learned 1 steps by the head alone/)
  const path = await downloaded('correct-save', 'dinov2.safetensors')
  assert.is(parseCheckpoint(sourceOf(readFileSync(path), path)).metadata.architecture, '"dpt"')
  await page.click('#tab-try')
  await page.click('#try-reset')
  await page.waitForFunction("/^scenes/.test(document.getElementById('try-model').textContent)")
  await page.waitForSelector('#try-busy', { state: 'hidden' })
})

pageTest('on a phone no part is wider than the screen, and what is said of the adapter can be read', async () => {
  await page.setViewportSize({ width: 390, height: 844 })
  for (const part of ['try', 'watch', 'correct', 'status']) {
    await page.click(`#tab-${part}`)
    assert.is(await page.evaluate('document.documentElement.scrollWidth'), 390, part)
  }
  const value = await page.locator('#status-adapter dd').first().boundingBox()
  assert.ok((value?.width ?? 0) > 120, `${value?.width} pixels`)
  await page.setViewportSize({ width: 1100, height: 800 })
  await page.click('#tab-try')
})

pageTest('of trainings that are begun one upon the other, the last alone is watched', async () => {
  const watch = `new Promise((resolve, reject) => {
    const worker = new Worker('./worker.js', { type: 'module' })
    const happened = []
    worker.onerror = () => reject(new Error('the worker does not load'))
    setTimeout(() => reject(new Error('only this happened: ' + happened)), 60_000)
    worker.onmessage = ({ data }) => {
      if (data.event === 'watch' && data.detail.kind === 'scenes') happened.push('scenes')
      if (data.id) happened.push(data.error ? data.error.message : 'end of ' + data.id)
      if (!happened.includes('end of 2') || !happened.includes('scenes')) return
      worker.terminate()
      resolve(happened)
    }
    for (const id of [1, 2, 3]) worker.postMessage({ id, call: 'watch', ask: { method: 'prevmatch', seed: id } })
  })`
  assert.equal(await page.evaluate(watch), ['end of 1', 'end of 2', 'scenes'])
})

pageTest('goes on with another device where the GPU process is killed', async () => {
  await page.click('#tab-try')
  const shares = await page.locator('#try-legend').innerText()
  const session = await browser.newBrowserCDPSession()
  // It is gone before it could answer.
  await session.send('Browser.crashGpuProcess').catch(() => {})
  await page.waitForFunction("/the GPU was lost/.test(document.getElementById('status-log').textContent)")
  await page.click('#tab-status')
  await page.selectOption('#status-runtime', 'webgpu')
  await page.click('#tab-try')
  await page.waitForFunction("/on WebGPU/.test(document.getElementById('try-line').textContent)", null, {
    timeout: 60_000,
  })
  assert.is(await page.locator('#try-legend').innerText(), shares, 'as in WebAssembly before')
})

pageTest('without WebGPU it segments all the same, and says what is missing', async () => {
  await browser.close()
  browser = await openBrowser()
  page = await open()
  assert.match(await text('notice'), /^No WebGPU: .+ Pictures are segmented in WebAssembly; training needs WebGPU\.$/)
  assert.match(await text('try-line'), /WebAssembly/)
  await page.click('#tab-watch')
  await page.click('#watch-go')
  await page.waitForSelector('#toast', { state: 'visible' })
  assert.match(await text('toast'), /WebGPU/)
  await page.click('#tab-correct')
  assert.ok(await page.locator('#correct-learn').isDisabled())
})

pageTest('nothing went wrong in the page itself', () => assert.equal(faults, []))

test.run()
