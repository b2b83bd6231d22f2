import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { browserPath } from './browser.js'

/** A tab, or a worker of one, by its session of the DevTools protocol. */
export interface Target {
  /** The value of an expression, awaited. Throws what it throws. */
  evaluate(expression: string): Promise<unknown>
}

/** A headless Chromium with all that saves power in hidden tabs, which Playwright turns off: it tells every page that it is seen. */
export interface RawBrowser {
  /** Opens a tab in front of the others. */
  openTab(url: string): Promise<Target>
  /** Workers of all tabs. */
  readonly workers: readonly Target[]
  close(): Promise<void>
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Readonly<Record<string, unknown>>
  readonly result?: Readonly<Record<string, unknown>>
  readonly error?: { readonly message: string }
}

interface Evaluated {
  readonly result: { readonly value?: unknown }
  readonly exceptionDetails?: { readonly text: string; readonly exception?: { readonly description?: string } }
}

export async function openRawBrowser(): Promise<RawBrowser> {
  if (!browserPath) throw new Error('there is no Chromium')
  const profile = mkdtempSync(join(tmpdir(), 'atrous-browser-'))
  const flags = ['--headless', '--no-sandbox', '--enable-unsafe-webgpu', '--no-first-run']
  const quiet = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic']
  const args = [...flags, ...quiet, '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank']
  const browser = spawn(browserPath, args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
  const ended = new Promise<void>((resolve) => browser.once('close', () => resolve()))
  const [, , , input, output] = browser.stdio as unknown as [null, null, null, Writable, Readable]

  const waiting = new Map<number, (message: Message) => void>()
  const workers: Target[] = []
  let last = 0
  const send = async <T>(method: string, params: object = {}, sessionId?: string): Promise<T> => {
    const id = ++last
    input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    const { result, error } = await new Promise<Message>((resolve) => waiting.set(id, resolve))
    if (error) throw new Error(`${method}: ${error.message}`)
    return result as T
  }
  const targetOf = (sessionId: string): Target => ({
    evaluate: async (expression) => {
      const call = { expression, awaitPromise: true, returnByValue: true }
      const { result, exceptionDetails } = await send<Evaluated>('Runtime.evaluate', call, sessionId)
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
      return result.value
    },
  })
  let rest = ''
  output.setEncoding('utf8').on('data', (text: string) => {
    const messages = (rest + text).split('\0')
    rest = messages.pop() ?? ''
    for (const message of messages.map((each) => JSON.parse(each) as Message)) {
      if (message.id !== undefined) waiting.get(message.id)?.(message)
      const isWorker = (message.params?.targetInfo as { type?: string } | undefined)?.type === 'worker'
      if (message.method === 'Target.attachedToTarget' && isWorker) {
        workers.push(targetOf(String(message.params?.sessionId)))
      }
    }
  })
  return {
    openTab: async (url) => {
      const { targetId } = await send<{ targetId: string }>('Target.createTarget', { url })
      const attach = { targetId, flatten: true }
      const { sessionId } = await send<{ sessionId: string }>('Target.attachToTarget', attach)
      const automatic = { autoAttach: true, waitForDebuggerOnStart: false, flatten: true }
      await send('Target.setAutoAttach', automatic, sessionId)
      return targetOf(sessionId)
    },
    workers,
    close: async () => {
      await send('Browser.close')
      await ended
      rmSync(profile, { recursive: true })
    },
  }
}
