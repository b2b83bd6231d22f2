import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { browserPath, openBrowser } from '../support/browser.js'
import { servePage } from './serve.js'

/** The Vulkan driver that Chromium brings, which Node can use as well. */
const driver = '/usr/lib/chromium/vk_swiftshader_icd.json'

/** Why a page and Node cannot be compared here, or undefined. */
export const notComparable: string | undefined = !browserPath
  ? 'there is no Chromium'
  : existsSync(driver)
    ? undefined
    : 'the Chromium here brings no SwiftShader that Node could use'

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** Hashes of computations in Node. */
function inNode(names: readonly string[]): readonly string[] {
  const { status, stdout, stderr } = spawnSync(process.execPath, [here('./computations-node.js'), ...names], {
    encoding: 'utf8',
    env: { ...process.env, VK_DRIVER_FILES: driver, VK_ICD_FILENAMES: driver },
  })
  if (status !== 0 || !/swiftshader/i.test(stderr)) throw new Error(`Node on SwiftShader: ${stderr}`)
  return stdout.trim().split('\n')
}

/**
 * What a call gives in a page.
 * @param script a file here that defines what is called
 */
export async function inPage(script: string, call: string): Promise<unknown> {
  const served = await servePage()
  try {
    const outfile = join(served.folder, 'script.js')
    await build({
      entryPoints: [here(`./${script}`)],
      outfile,
      bundle: true,
      format: 'esm',
      logLevel: 'error',
    })
    const browser = await openBrowser(true)
    try {
      const page = await browser.newPage()
      // Any page of that origin will do.
      await page.goto(new URL('icon.svg', served.url).href)
      return await page.evaluate(`import('/script.js').then(() => ${call})`)
    } finally {
      await browser.close()
    }
  } finally {
    await served.end()
  }
}

/** Hashes of computations by names, of a page and of Node. */
export async function hashes(names: readonly string[]): Promise<readonly (readonly [page: string, node: string])[]> {
  const page = (await inPage('computations-page.js', `compute(${JSON.stringify(names)})`)) as string[]
  const node = inNode(names)
  return names.map((_, i) => [page[i] ?? '', node[i] ?? ''] as const)
}
