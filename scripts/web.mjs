// node scripts/web.mjs build [FOLDER]    bundles web/ into a folder of static files with relative addresses (build/web)
// node scripts/web.mjs serve [FOLDER] [--port NUMBER]    the same, then serves it on 127.0.0.1 until it is ended
import { cpSync, createReadStream, existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const source = join(root, 'web')

/** zod brings its messages in fifty languages, 200 KB of them; here English ones are shown. */
const englishOnly = {
  name: 'english-only',
  setup(build) {
    build.onResolve({ filter: /locales\/index\.js$/ }, ({ resolveDir }) =>
      /[\\/]zod[\\/]/.test(resolveDir) ? { path: 'locales', namespace: 'english-only' } : undefined,
    )
    build.onLoad({ filter: /.*/, namespace: 'english-only' }, () => ({
      contents: `export { default as en } from ${JSON.stringify(fileURLToPath(import.meta.resolve('zod/v4/locales/en.js')))}`,
      resolveDir: root,
    }))
  },
}

async function buildPage(folder) {
  if (!existsSync(join(root, 'dist', 'index.js'))) throw new Error('dist/ is missing: run npm run build first')
  if (existsSync(folder) && !existsSync(join(folder, 'page.js')) && readdirSync(folder).length > 0) {
    throw new Error(`${folder} exists and holds no page: name another folder or remove it`)
  }
  const { build } = await import('esbuild')
  rmSync(folder, { recursive: true, force: true })
  await build({
    absWorkingDir: root,
    entryPoints: { page: 'web/src/page.ts', worker: 'web/src/worker/worker.ts', style: 'web/style.css' },
    outdir: folder,
    chunkNames: 'part-[hash]',
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    target: 'es2023',
    platform: 'browser',
    plugins: [englishOnly],
    logLevel: 'warning',
  })
  for (const name of ['index.html', 'icon.svg', 'weights']) {
    cpSync(join(source, name), join(folder, name), { recursive: true })
  }
  const runtime = 'ort-wasm-simd-threaded.wasm'
  cpSync(fileURLToPath(import.meta.resolve(`onnxruntime-web/${runtime}`)), join(folder, runtime))
}

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.safetensors': 'application/octet-stream',
}

/** Serves a folder to this machine alone. Resolves with the address. */
function serve(folder, port) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    let path
    try {
      path = join(folder, normalize(decodeURIComponent(pathname)))
    } catch {
      response.writeHead(400).end()
      return
    }
    if (path.endsWith('/')) path = join(path, 'index.html')
    if (!path.startsWith(folder) || !existsSync(path) || !statSync(path).isFile()) {
      response.writeHead(404).end()
      return
    }
    response.writeHead(200, {
      'content-type': types[extname(path)] ?? 'application/octet-stream',
      'cache-control': 'no-cache',
    })
    createReadStream(path).pipe(response)
  })
  return new Promise((done, fail) => {
    server.once('error', fail)
    server.listen(port, '127.0.0.1', () => done(`http://127.0.0.1:${server.address().port}/`))
  })
}

try {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: { port: { type: 'string' } } })
  const [command, folder = join(root, 'build', 'web')] = positionals
  if (command !== 'build' && command !== 'serve') throw new Error('give a command: build or serve')
  const port = Number(values.port ?? 8080)
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`--port ${values.port}: give 0 to 65535`)
  const target = resolve(folder)
  await buildPage(target)
  console.log(command === 'build' ? `the page is in ${target}` : `the page is at ${await serve(target, port)}`)
} catch (error) {
  console.error(`web: ${error.code === 'EADDRINUSE' ? 'the port is taken: choose another with --port' : error.message}`)
  process.exit(1)
}
