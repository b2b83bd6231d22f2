// What imports what, types too: no circle between the files of src, and between its rooms arrows that run down only.
import { readdirSync, readFileSync } from 'node:fs'
import { join, posix, sep } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'

/** The rooms of src from top to bottom, as folders: a room may import itself and any room below it. */
const rooms: readonly (readonly string[])[] = [
  ['index.ts', 'exports'],
  ['.'],
  ['demo', 'comparison', 'doctor'],
  ['segmenter'],
  ['train/run'],
  ['train/tuning'],
  ['train/logging'],
  ['train/checkpoint'],
  ['train/config'],
  ['train/trainer'],
  ['train/methods'],
  ['onnx'],
  ['train/evaluation'],
  ['train/drawing'],
  ['train/data'],
  ['train/io'],
  ['train/distributed'],
  ['train'],
  ['models'],
  ['kernels'],
  ['engine', 'engine/passes'],
]

/** All that a pass may know: the trace, and what an adapter is able to; nothing of how programs are laid out, run or timed. */
const knownToPasses = [
  'engine/passes/',
  'engine/adapter.ts',
  'engine/ir.ts',
  'engine/expr.ts',
  'engine/ranges.ts',
  'engine/shape.ts',
  'engine/store.ts',
  'engine/value-text.ts',
]

/** Rooms that run in a browser too, and the one file that does not. */
const portable = /^(engine|kernels|models)\//
const nodeOnly = 'engine/node.ts'

/** What pages import, and the file that stands for `#files` there. */
const ofPages = ['index.ts', 'engine/browser.ts', 'exports/models.ts', 'exports/train.ts']
const filesOfPages = 'segmenter/files-page.ts'
/** Packages that run in a page. */
const portablePackages = ['zod', '@petamoriken/float16']

/** Code without comments and without templates, which hold the text of shaders. */
const plain = (code: string): string =>
  code
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '')
    .replace(/`(?:\\.|[^`\\])*`/g, '``')

/** The modules that code names in `import … from`, `export … from`, `import '…'` and `import('…')`. */
function importsOf(code: string): string[] {
  const declaration = /^(?:import|export)\b(?:[^'"=()]*?\bfrom)?\s*'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm
  return [...plain(code).matchAll(declaration)].map(([, declared, called]) => declared ?? called ?? '')
}

/** The same without what is gone when the code runs. */
const whenRunning = (code: string): string[] =>
  importsOf(plain(code).replace(/^(?:import|export) type\b[^'"]*?\bfrom '[^']*'/gm, ''))

const files = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => name.split(sep).join('/'))
  .sort()

/** What files import by `find`: other files by their paths below src, packages by their names. */
const importsBy = (find: (code: string) => string[]) =>
  new Map(
    files.map((file) => {
      const names = find(readFileSync(join('src', file), 'utf8'))
      const pathOf = (name: string) => posix.join(posix.dirname(file), name).replace(/\.js$/, '.ts')
      return [file, names.map((name) => (name.startsWith('.') ? pathOf(name) : name))] as const
    }),
  )
const imports = importsBy(importsOf)

interface Arrow {
  readonly from: string
  readonly to: string
}
const arrows = [...imports].flatMap(([from, names]) => names.map((to): Arrow => ({ from, to })))
const inside = arrows.filter(({ to }) => imports.has(to))
const show = (list: readonly Arrow[]): string => list.map(({ from, to }) => `${from} imports ${to}`).join('\n')

function roomOf(file: string): number {
  const exact = rooms.findIndex((room) => room.includes(file))
  const room = exact >= 0 ? exact : rooms.findIndex((folders) => folders.includes(posix.dirname(file)))
  if (room < 0) throw new Error(`src/${file} is in no room of the table in test/imports.test.ts`)
  return room
}
const upward = inside.filter(({ from, to }) => roomOf(to) < roomOf(from))
const isTraining = (file: string): boolean => file.startsWith('train/')
const isWithinTraining = ({ from, to }: Arrow): boolean => isTraining(from) && isTraining(to)

/** The files of a circle of imports, in its order; undefined where there is none. */
function circle(): string[] | undefined {
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    const at = path.indexOf(file)
    if (at >= 0) return [...path.slice(at), file]
    if (done.has(file)) return undefined
    for (const name of imports.get(file) ?? []) {
      const found = visit(name, [...path, file])
      if (found) return found
    }
    done.add(file)
    return undefined
  }
  for (const file of files) {
    const found = visit(file, [])
    if (found) return found
  }
  return undefined
}

test('imports are found in every form that they have', () => {
  const code = `import type { A } from './a.js'
import {
  type B,
  c,
} from './b.js'
import * as d from './d.js'
import './e.js'
export { f } from './f.js'
export * from './g.js'
// import { no } from './comment.js'
const h = await import('./h.js')
type I = import('./i.js').I
export const from = 'nothing'
`
  assert.equal(
    importsOf(code).sort(),
    ['a', 'b', 'd', 'e', 'f', 'g', 'h', 'i'].map((name) => `./${name}.js`),
  )
  const missing = arrows.filter(({ to }) => to.endsWith('.ts') && !imports.has(to))
  assert.is(show(missing), '', 'an import leads nowhere')
  assert.ok(inside.length > 300, `${inside.length} imports`)
})

test('no files import each other in a circle', () => {
  assert.is(circle()?.join(' → '), undefined)
})

test('no room imports one above it', () => {
  assert.is(show(upward.filter((arrow) => !isWithinTraining(arrow))), '')
})

test('no room of src/train imports one above it', () => {
  assert.is(show(upward.filter(isWithinTraining)), '')
})

test('passes know the trace and the adapter alone', () => {
  const beyond = inside.filter(
    ({ from, to }) => from.startsWith('engine/passes/') && !knownToPasses.some((known) => to.startsWith(known)),
  )
  assert.is(show(beyond), '')
})

test('engine, kernels and models import nothing from Node', () => {
  const fromNode = arrows.filter(({ from, to }) => portable.test(from) && from !== nodeOnly && to.startsWith('node:'))
  assert.is(show(fromNode), '')
  assert.ok(imports.get(nodeOnly)?.some((name) => name.startsWith('node:')))
})

test('what pages import leads to no module of Node, and to no package that needs one', () => {
  const running = importsBy(whenRunning)
  const reached = new Map<string, string>(ofPages.map((file) => [file, '']))
  // A map that grows while it is walked is walked to its new end.
  for (const [file] of reached) {
    for (const name of running.get(file) ?? []) {
      const target = name === '#files' ? filesOfPages : name
      if (!reached.has(target)) reached.set(target, file)
    }
  }
  const outside = [...reached].filter(([name]) => !name.endsWith('.ts') && !portablePackages.includes(name))
  assert.is(show(outside.map(([to, from]) => ({ from, to }))), '')
  assert.ok(reached.size > 150, `${reached.size} files`)
})

test.run()
