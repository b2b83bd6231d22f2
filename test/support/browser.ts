import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

/** Path of an installed Chromium, or undefined. */
export const browserPath: string | undefined = (process.env.PATH ?? '')
  .split(delimiter)
  .flatMap((folder) => names.map((name) => join(folder, name)))
  .find((path) => existsSync(path))

/**
 * Opens a headless Chromium with a profile of its own, which is removed when it is closed.
 * @param webgpu whether pages have WebGPU: on SwiftShader where there is no GPU
 */
export function openBrowser(webgpu = false): Promise<Browser> {
  if (!browserPath) throw new Error('there is no Chromium')
  const quiet = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic']
  const gpu = webgpu ? '--enable-unsafe-webgpu' : '--disable-gpu'
  const args = ['--headless', '--no-sandbox', gpu, '--no-first-run', ...quiet]
  return chromium.launch({ executablePath: browserPath, args })
}
