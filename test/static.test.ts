// What the sources and the lists of dependencies promise before anything runs.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { exitCodes } from '#dist/train/run/exit-codes.js'

const test = suite('static')
const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'))

const filesBelow = (folder: string, ending: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name))

interface Package {
  readonly dependencies?: Record<string, string>
  readonly peerDependencies?: Record<string, string>
  readonly devDependencies?: Record<string, string>
}

interface Lock {
  readonly packages: Record<
    string,
    { readonly version?: string; readonly resolved?: string; readonly integrity?: string }
  >
}

for (const folder of ['.', 'bench/peers', 'test/consumers']) {
  test(`${folder}: dependencies have one version each, which the lock repeats without addresses`, () => {
    const { dependencies, devDependencies } = readJson(join(folder, 'package.json')) as Package
    const { packages } = readJson(join(folder, 'package-lock.json')) as Lock
    const wanted = Object.entries({ ...dependencies, ...devDependencies })
    assert.ok(wanted.length > 3)
    for (const [name, version] of wanted) {
      assert.match(version, /^\d+\.\d+\.\d+(-[\w.]+)?$/, name)
      assert.is(packages[`node_modules/${name}`]?.version, version, name)
    }
    for (const [path, { resolved, integrity }] of Object.entries(packages)) {
      assert.is(resolved, undefined, path)
      if (path !== '') assert.match(integrity ?? '', /^sha512-/, path)
    }
  })
}

test('the README says what each dependency is for', () => {
  const { dependencies = {}, devDependencies = {}, peerDependencies = {} } = readJson('package.json') as Package
  const table = readFileSync('README.md', 'utf8').split('## Dependencies')[1] ?? ''
  const rows = [...table.matchAll(/^\| (`.*`)( \(development\))? \| \w.+ \|$/gm)]
  const named = (development: boolean) =>
    rows
      .filter(([, , word]) => (word !== undefined) === development)
      .flatMap(([, names = '']) => names.split(', ').map((name) => name.replaceAll('`', '')))
  assert.equal(named(false).sort(), Object.keys({ ...dependencies, ...peerDependencies }).sort())
  // Types of a dependency need no row of their own.
  const others = { ...dependencies, ...peerDependencies }
  const needed = Object.keys(devDependencies).filter((name) => !(name.replace('@types/', '') in others))
  assert.equal(named(true).sort(), needed.sort())
})

test('the package holds what runs, and nothing of how it was made', () => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts']
  const { stdout } = spawnSync('npm', args, { encoding: 'utf8', shell: process.platform === 'win32' })
  const [{ files }] = JSON.parse(stdout) as [{ files: readonly { readonly path: string }[] }]
  const paths = files.map(({ path }) => path)
  const { bin, exports } = readJson('package.json') as { bin: string; exports: Record<string, string> }
  for (const path of [bin, ...Object.values(exports), 'LICENSE', 'README.md', 'configs/custom.yaml']) {
    assert.ok(paths.includes(path.replace(/^\.\//, '')), path)
  }
  for (const path of filesBelow('assets', '')) assert.ok(statSync(path).isDirectory() || paths.includes(path), path)
  for (const path of paths) {
    assert.match(path, /^(LICENSE|README\.md|package\.json|dist\/.+(\.js|\.d\.ts)|(assets|configs)\/.+)$/)
  }
})

test('the linter refuses any, and assertions that something is not null', () => {
  const { linter } = readJson('biome.json') as { linter: { rules: Record<string, Record<string, string>> } }
  assert.is(linter.rules.suspicious?.noExplicitAny, 'error')
  assert.is(linter.rules.suspicious?.noEvolvingTypes, 'error')
  assert.is(linter.rules.style?.noNonNullAssertion, 'error')
  const { scripts } = readJson('package.json') as { scripts: Record<string, string> }
  assert.match(scripts.test ?? '', /run --silent lint/)
  assert.match(scripts.lint ?? '', /--error-on-warnings/)
})

test('no module gives or takes any', () => {
  // Declarations also show the types that the compiler found by itself, such as that of JSON.parse.
  const files = filesBelow('dist', '.d.ts').filter((path) => existsSync(path.replace(/^dist(.*)\.d\.ts$/, 'src$1.ts')))
  assert.ok(files.length > 50)
  for (const path of files.filter((name) => !name.endsWith('.generated.d.ts'))) {
    const code = readFileSync(path, 'utf8')
      .replace(/\/\*[\s\S]*?\*\//g, '')
      .replace(/(["'`])(?:\\.|(?!\1).)*\1/g, '')
    assert.not.match(code, /\bany\b/, path)
  }
})

test('what silences the compiler or the linter says why', () => {
  const files = ['src', 'cases', 'test', 'bench', 'examples'].flatMap((folder) => filesBelow(folder, '.ts'))
  for (const path of files.filter((name) => !name.includes('node_modules'))) {
    for (const [line] of readFileSync(path, 'utf8').matchAll(/\/\/ *(biome-ignore|@ts-\w+)[^\n]*/g)) {
      assert.match(line, /biome-ignore [\w/]+: \w|@ts-expect-error:? \w/, `${path}: ${line}`)
    }
  }
})

test('the documented exit codes are those of the commands, and the tests that are named exist', () => {
  const text = readFileSync('docs/reliability.md', 'utf8')
  const rows = Object.values(exitCodes).map(([code, meaning]) => `| ${code} | ${meaning} |\n`)
  assert.ok(text.includes(`| --- | --- |\n${rows.join('')}\n`))
  const named = [...text.matchAll(/`([\w/-]+)`: ((?:\*[^*]+\*[^*|;`]*)+)/g)]
  assert.ok(named.length > 10)
  for (const [, file = '', titles = ''] of named) {
    const source = readFileSync(`test/${file}.test.ts`, 'utf8')
    for (const [, title = ''] of titles.matchAll(/\*([^*]+)\*/g)) {
      for (const part of title.split('…')) assert.ok(source.includes(part.trim()), `${file}: ${title}`)
    }
  }
})

test.run()
