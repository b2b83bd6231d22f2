import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'

/** The web page, bundled into a folder of its own and served. */
export interface Served {
  readonly url: string
  readonly folder: string
  readonly end: () => Promise<void>
}

export async function servePage(): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'atrous-web-'))
  const args = ['scripts/web.mjs', 'serve', folder, '--port', '0']
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<void>((resolve) => server.once('close', () => resolve()))
  let output = ''
  const url = await new Promise<string>((resolve, reject) => {
    const collect = (text: string) => {
      output += text
      const found = /http:\S+/.exec(output)
      if (found) resolve(found[0])
    }
    server.stdout.setEncoding('utf8').on('data', collect)
    server.stderr.setEncoding('utf8').on('data', collect)
    server.once('close', () => reject(new Error(`the page is not served: ${output}`)))
  })
  const end = async () => {
    server.kill()
    await ended
    rmSync(folder, { recursive: true })
  }
  return { url, folder, end }
}

/** Resolves when a page shows what the network says of its first picture. */
export async function waitForResult(page: Page): Promise<void> {
  await page.waitForSelector('html[data-ready]')
  await page.waitForSelector('#try-canvas[data-labels]', { state: 'attached' })
}

/** Drops a file on the page, or on an element of it, as a visitor does. */
export async function drop(page: Page, name: string, type: string, bytes: Uint8Array, id?: string): Promise<void> {
  const data = JSON.stringify([Buffer.from(bytes).toString('base64'), name, type, id])
  await page.evaluate(`(() => {
    const [text, name, type, id] = ${data}
    const transfer = new DataTransfer()
    transfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type }))
    const target = id ? document.getElementById(id) : document.body
    const settings = { dataTransfer: transfer, cancelable: true, bubbles: true }
    for (const event of ['dragover', 'drop']) target.dispatchEvent(new DragEvent(event, settings))
  })()`)
}

/** Run in a worker: lists in `asked` what asks for a timer or a frame from then on. */
export const countTimers = `globalThis.asked = []
for (const name of ['setTimeout', 'setInterval', 'requestAnimationFrame']) {
  const original = self[name]
  self[name] = (...list) => {
    asked.push(name)
    return original.call(self, ...list)
  }
}`
