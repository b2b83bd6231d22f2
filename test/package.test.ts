// What programs see that take the packed package as a dependency: its modules, and its types under several settings.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('package')
const folder = mkdtempSync(join(tmpdir(), 'atrous-package-'))
test.after(() => rmSync(folder, { recursive: true }))

function run(command: string, args: readonly string[], cwd = folder) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    ...{ cwd, encoding: 'utf8', shell: process.platform === 'win32' },
  })
  return { status, output: `${stdout}${stderr}` }
}

const declarations = readdirSync('dist', { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.d.ts'))
  .map((name) => join('dist', name))
const code = (path: string): string => readFileSync(path, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')

test('declarations take the types of WebGPU from one module, and none from the globals', () => {
  assert.ok(declarations.length > 100)
  const naming = declarations.filter((path) => /\bGPU[A-Z]/.test(code(path)) && !path.endsWith('webgpu-types.d.ts'))
  assert.ok(naming.length > 5)
  for (const path of naming) {
    const text = code(path)
    const imports = [...text.matchAll(/import type \{([^}]*)\} from '\.[^']*\/webgpu-types\.js'/g)]
    const imported = new Set(imports.flatMap(([, names = '']) => names.split(',').map((name) => name.trim())))
    for (const [name] of text.matchAll(/\bGPU[A-Z]\w*/g)) assert.ok(imported.has(name), `${path}: ${name}`)
    assert.not.match(text, /reference types/, path)
  }
})

/** A project with the packed package installed, and its dependencies linked. */
function install(): void {
  const packed = run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], '.')
  assert.is(packed.status, 0, packed.output)
  const archive = packed.output.trim().split('\n').at(-1) ?? ''
  const target = join(folder, 'node_modules', 'atrous')
  mkdirSync(target, { recursive: true })
  assert.is(run('tar', ['xzf', archive, '-C', join('node_modules', 'atrous'), '--strip-components=1']).status, 0)
  type Names = Readonly<Record<string, string>>
  const { dependencies, peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as Record<string, Names>
  for (const name of [...Object.keys({ ...dependencies, ...peerDependencies }), '@types/node', '@webgpu/types']) {
    const link = join(folder, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(resolve('node_modules', name), link, 'junction')
  }
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
}

const anywhere = `import { add, compile, type Device, grad, openDevice, Store, spec, type Tensor } from 'atrous'
import { open } from 'atrous/node'
import { Segmenter } from 'atrous/train'
const device: Device = await open({})
const twice = (x: Tensor): Tensor => add(x, x)
console.log(compile, grad, openDevice, new Store(device, 'x'), spec, twice, Segmenter.load)
`

/** Where there are types of WebGPU, the package has them too. */
const withWebGpu = `import { openDevice, summarizeAdapter } from 'atrous'
declare const gpu: GPU
const adapter = await gpu.requestAdapter()
if (!adapter) throw new Error('no adapter')
const device = await openDevice(adapter, summarizeAdapter(adapter))
export const limit: number = device.gpu.limits.maxBufferSize
// @ts-expect-error: a number is no adapter
await openDevice(3, summarizeAdapter(adapter))
`

/** Complaints of the compiler about our declarations and the program, of which those of other packages are none. */
function complaints(file: string, ...options: string[]): string[] {
  const strict = [
    '--noEmit',
    '--strict',
    '--exactOptionalPropertyTypes',
    '--skipLibCheck',
    'false',
    '--target',
    'es2022',
  ]
  const compiler = resolve('node_modules/typescript/bin/tsc')
  const { output } = run(process.execPath, [compiler, ...strict, ...options, file])
  return output.split('\n').filter((line) => / error TS/.test(line) && !/node_modules.(?!atrous)/.test(line))
}

const nodenext = ['--module', 'nodenext']
const bundler = ['--module', 'esnext', '--moduleResolution', 'bundler']
const [bare, dom] = [
  ['--lib', 'es2022', '--types', 'node'],
  ['--lib', 'es2022,dom', '--types', 'node'],
]
const settings: readonly (readonly [what: string, file: string, options: readonly string[]])[] = [
  ['nodenext', 'anywhere.ts', [...nodenext, ...bare]],
  ['node16', 'anywhere.ts', ['--module', 'node16', ...bare]],
  ['bundler', 'anywhere.ts', [...bundler, ...bare]],
  ['nodenext with dom', 'web.ts', [...nodenext, ...dom]],
  ['bundler with dom', 'anywhere.ts', [...bundler, ...dom]],
  ['@webgpu/types', 'web.ts', [...nodenext, '--lib', 'es2022', '--types', 'node,@webgpu/types']],
  ['@webgpu/types beside dom', 'anywhere.ts', [...nodenext, '--lib', 'es2022,dom', '--types', 'node,@webgpu/types']],
]

/** Bytes of a page's bundle of a program, minified, and gzipped. */
async function bundled(contents: string): Promise<{ readonly bytes: number; readonly gzipped: number }> {
  const stdin = { contents, resolveDir: folder, loader: 'ts' } as const
  const options = { bundle: true, minify: true, format: 'esm', platform: 'browser', write: false } as const
  const { outputFiles } = await build({ stdin, ...options, logLevel: 'silent' })
  const code = outputFiles[0]?.contents ?? new Uint8Array()
  return { bytes: code.length, gzipped: gzipSync(code).length }
}

test('a page takes what it uses, and nothing of Node', async () => {
  install()
  const product = `import { compile, matmul, openDevice } from 'atrous'; console.log(compile, matmul, openDevice)`
  const { bytes, gzipped } = await bundled(product)
  // In one file are the kernels of all adapters; what a page loads of them is held in test/consumers.
  assert.ok(bytes < 195_000 && gzipped < 61_000, `${bytes} bytes, ${gzipped} gzipped`)
  const all = await bundled(`import * as engine from 'atrous'; console.log(engine)`)
  assert.ok(bytes < 0.7 * all.bytes, `${bytes} of ${all.bytes} bytes`)
  await bundled(`import * as models from 'atrous/models'; import * as train from 'atrous/train'
import * as browser from 'atrous/browser'; console.log(models, train, browser)`)
})

test('the packed package can be imported, and required', () => {
  const imported = `import { compile } from 'atrous'; import { open } from 'atrous/node'; console.log(typeof compile, typeof open)`
  const required = `console.log(typeof require('atrous').compile, typeof require('atrous/node').open)`
  for (const args of [
    ['--input-type=module', '--eval', imported],
    ['--input-type=commonjs', '--eval', required],
  ]) {
    const { status, output } = run(process.execPath, args)
    assert.is(status, 0, output)
    assert.match(output, /^function function$/m)
  }
})

for (const [what, file, options] of settings) {
  test(`types: ${what}, the libraries checked too`, () => {
    writeFileSync(join(folder, 'anywhere.ts'), anywhere)
    writeFileSync(join(folder, 'web.ts'), withWebGpu)
    assert.equal(complaints(file, ...options), [])
  })
}

test('types: mistakes are found', () => {
  writeFileSync(join(folder, 'wrong.ts'), `import { compile } from 'atrous'\nexport const x: number = compile\n`)
  assert.match(complaints('wrong.ts', ...nodenext, ...bare).join('\n'), /^wrong\.ts.*TS2322/)
})

test.run()
