// Projects that install the packed package: what their compilers, bundlers and pages see. Run: npm run test:package
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { build, type Metafile } from 'esbuild'
import { test } from 'uvu'
import * as assert from 'uvu/assert'

const tools = resolve('test/consumers/node_modules')
const folder = mkdtempSync(join(tmpdir(), 'atrous-consumers-'))
test.after(() => rmSync(folder, { recursive: true }))

function run(command: string, args: readonly string[], cwd = folder) {
  const shell = process.platform === 'win32'
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', shell })
  return { status, output: `${stdout}${stderr}` }
}
const node = (...args: string[]) => run(process.execPath, args)

let archive = ''
test.before(() => {
  const packed = run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], '.')
  assert.is(packed.status, 0, packed.output)
  archive = packed.output.trim().split('\n').at(-1) ?? ''
  writeFileSync(join(folder, 'package.json'), '{ "type": "module", "private": true }')
  const types = ['@types/node', '@webgpu/types'].map((name) => {
    const { version } = JSON.parse(readFileSync(join('node_modules', name, 'package.json'), 'utf8')) as Record<
      'version',
      string
    >
    return `${name}@${version}`
  })
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--silent']
  const installed = run('npm', ['install', ...flags, `./${archive}`, ...types])
  assert.is(installed.status, 0, installed.output)
})

test('a page’s project gets neither Dawn nor sharp', () => {
  const names = readdirSync(join(folder, 'node_modules'))
  assert.ok(names.includes('zod') && names.includes('atrous'))
  assert.not.ok(names.includes('webgpu') || names.includes('sharp') || names.includes('@img'), names.join())
})

test('commands say what to install where it is missing', () => {
  const { status, output } = node('node_modules/atrous/dist/atrous.js', 'predict', '--help')
  assert.is(status, 1, output)
  assert.match(output, /^error: the package (sharp|webgpu) is missing: npm install webgpu sharp\n$/)
})

test('publint and attw are content', () => {
  const lint = node(join(tools, 'publint/src/cli.js'), archive, '--strict')
  assert.is(lint.status, 0, lint.output)
  const types = node(join(tools, '@arethetypeswrong/cli/dist/index.js'), archive, '--profile', 'esm-only')
  assert.is(types.status, 0, types.output)
})

const program = `import { add, AtrousError, compile, type Device, grad, openDevice, Store, spec, type Tensor } from 'atrous'
import { NoAdapterError, open } from 'atrous/browser'
import { createModel } from 'atrous/models'
import { createTrainer, Segmenter } from 'atrous/train'
const refused = await open({}).catch((error: unknown) => error)
const isOurs = refused instanceof AtrousError && refused instanceof NoAdapterError
console.log(isOurs, (refused as Error).name, (refused as Error).message)
export const twice = (x: Tensor): Tensor => add(x, x)
export async function labelsOf(device: Device): Promise<Uint8Array> {
  const segmenter = await Segmenter.load(device, new Uint8Array(3), { signal: AbortSignal.timeout(1000) })
  const { labels } = await segmenter.segment({ data: new Uint8Array(3), width: 1, height: 1 })
  await segmenter.segmentOnDevice({ data: labels, width: 1, height: 1 })
  return labels
}
export const all = [compile, grad, openDevice, Store, spec, createModel, createTrainer]
`
const inPage = `import type { Segmenter } from 'atrous/train'
export async function colorsOf(segmenter: Segmenter) {
  const { labels } = await segmenter.segment(document.createElement('video'))
  const { overlay } = await segmenter.segmentOnDevice(new OffscreenCanvas(labels.length, 1))
  // @ts-expect-error: this is no picture
  await segmenter.segment({ videoWidth: 3 })
  return overlay
}
`
const inNode = `import { open } from 'atrous/node'
export const device = await open({ gpu: 'llvmpipe' })
`
const compilers = { 'TypeScript 7': resolve('node_modules/typescript'), 'TypeScript 5.9': join(tools, 'typescript') }
const modules = {
  node16: ['--module', 'node16'],
  nodenext: ['--module', 'nodenext'],
  bundler: ['--module', 'esnext', '--moduleResolution', 'bundler'],
}
const libraries = {
  'es2022 and node': ['--lib', 'es2022', '--types', 'node'],
  dom: ['--lib', 'es2022,dom', '--types', 'node'],
  'dom and @webgpu/types': ['--lib', 'es2022,dom', '--types', 'node,@webgpu/types'],
}
for (const [compiler, path] of Object.entries(compilers)) {
  for (const [name, options] of Object.entries(modules)) {
    for (const [library, types] of Object.entries(libraries)) {
      test(`${compiler}, ${name}, ${library}: everything is checked, and nothing is wrong`, () => {
        writeFileSync(join(folder, 'program.ts'), program)
        writeFileSync(join(folder, 'in-node.ts'), inNode)
        const strict = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--skipLibCheck', 'false']
        const files = ['program.ts', 'in-node.ts', ...(library.startsWith('dom') ? ['in-page.ts'] : [])]
        writeFileSync(join(folder, 'in-page.ts'), inPage)
        const args = [...strict, '--target', 'es2022', ...options, ...types, ...files]
        const { output } = node(join(path, 'bin/tsc'), ...args)
        // The library dom of TypeScript 7 has WebGPU: with @webgpu/types beside it, these two declare it twice.
        const twice = compiler === 'TypeScript 7' && library.includes('@webgpu/types')
        const ours = (line: string) => !twice || /atrous|^program|^in-(node|page)/.test(line)
        assert.equal(
          output.split('\n').filter((line) => / error TS/.test(line) && ours(line)),
          [],
        )
      })
    }
  }
}

/** What a bundle prints where there is no WebGPU. */
function runs(file: string): void {
  const { status, output } = node(file)
  assert.is(status, 0, output)
  assert.match(output, /^true NoAdapterError this browser has no WebGPU/m)
  assert.not.match(readFileSync(join(folder, file), 'utf8'), /from ?"node:|require\("/)
}

test('esbuild bundles it for a page, minified, and it runs', async () => {
  const [entry, outfile] = [join(folder, 'program.ts'), join(folder, 'bundle.js')]
  await build({
    ...{ entryPoints: [entry], outfile, bundle: true, minify: true, format: 'esm', platform: 'browser' },
    logLevel: 'silent',
  })
  runs('bundle.js')
})

const product = `import { compile, matmul, spec } from 'atrous'
import { open } from 'atrous/browser'
const program = await compile(await open(), { a: spec([4, 8]), b: spec([8, 4]) }, ({ a, b }) => ({ c: matmul(a, b) }))
program.run({ a: new Float32Array(32), b: new Float32Array(32) })
console.log(await program.read('c'))
`

/** Bytes of the files that an output of esbuild imports when it is loaded, its own included. */
function bytesAtStart({ outputs }: Metafile, name: string, counted = new Set<string>()): number {
  counted.add(name)
  const { bytes = 0, imports = [] } = outputs[name] ?? {}
  const others = imports.filter(({ kind, path }) => kind === 'import-statement' && !counted.has(path))
  return others.reduce(
    (sum, { path }) => sum + (counted.has(path) ? 0 : bytesAtStart({ outputs } as Metafile, path, counted)),
    bytes,
  )
}

test('a page that multiplies matrices begins with less than 40 KB', async () => {
  writeFileSync(join(folder, 'product.ts'), product)
  const { metafile } = await build({
    ...{ absWorkingDir: folder, entryPoints: ['product.ts'], outdir: 'product', bundle: true, splitting: true },
    ...{ minify: true, format: 'esm', platform: 'browser', target: 'es2022', metafile: true, logLevel: 'silent' },
  })
  const bytes = bytesAtStart(metafile, 'product/product.js')
  assert.ok(bytes > 20_000 && bytes < 40_000, `${bytes} bytes`)
})

test('Vite bundles it for a page, and it runs', () => {
  writeFileSync(
    join(folder, 'vite.config.js'),
    `export default { logLevel: 'error', build: { target: 'esnext', lib: { entry: 'program.ts', formats: ['es'], fileName: 'vite' } } }`,
  )
  const { status, output } = node(join(tools, 'vite/bin/vite.js'), 'build')
  assert.is(status, 0, output)
  assert.ok(existsSync(join(folder, 'dist/vite.js')))
  // As such it includes files that a module names by its own address.
  for (const file of readdirSync(join(folder, 'dist'))) {
    assert.not.match(readFileSync(join(folder, 'dist', file), 'utf8'), /data:[a-z]+\/[a-z0-9]+;base64/, file)
  }
  runs('dist/vite.js')
})

test.run()
