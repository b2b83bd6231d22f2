import { megabytes } from './device.js'
import { type Node, type Tensor, type Trace, valueKey } from './ir.js'
import type { Command } from './lower.js'
import { mirrorBytes } from './mirror.js'
import type { Location, Plan } from './plan.js'
import { byteLength, sameShape, showShape, showSpec } from './shape.js'
import type { Variable } from './store.js'

/** What the text of a program is made of. */
export interface PrintedProgram {
  readonly label: string
  /** As its function was traced, and as the passes left it. */
  readonly traced: Trace
  readonly trace: Trace
  readonly planned: Plan
}

/**
 * A trace as text: a line for each node with what it gives (`%node.output`), its name, operands, attributes and layer;
 * then the results. A value that is seen under another shape is followed by that.
 */
export function printTrace({ nodes, outputs, assigned }: Trace): string {
  const rows = nodes.map((node) => [
    node.outputs.map((spec, index) => `%${node.id}.${index} ${showSpec(spec)}`).join(', '),
    `= ${node.name}`,
    node.op ? `(${node.inputs.map(showOperand).join(', ')})` : '',
    showAttributes(node.attrs),
    showLayer(node),
  ])
  const results = [
    ...[...outputs].map(([name, value]) => [`output ${name}`, `= ${showOperand(value)}`]),
    ...[...assigned].map(([variable, value]) => [nameOf(variable), `← ${showOperand(value)}`]),
  ]
  return [...aligned(rows), ...aligned(results)].join('\n')
}

/**
 * A program as text: its trace, what the passes made of it, the commands of a run with the places that they read and
 * write (`b2+1024` is byte 1024 of buffer 2, `t0` is texture 0), and the memory that all of it takes.
 */
export function printProgram({ parts: { label, traced, trace, planned } }: { readonly parts: PrintedProgram }): string {
  const sections = [
    [`trace, ${traced.nodes.length} nodes`, printTrace(traced)],
    [`after the passes, ${trace.nodes.length} nodes`, printTrace(trace)],
    [`commands, ${planned.commands.length + planned.variableWrites.length}`, printCommands(planned)],
    ['memory', printMemory(trace, planned)],
  ]
  return `program ${label}\n${sections.map(([title, text]) => `\n# ${title}\n${text}\n`).join('')}`
}

const showOperand = (value: Tensor): string => {
  const declared = value.node.outputs[value.index]?.shape ?? value.shape
  return `%${valueKey(value)}${sameShape(declared, value.shape) ? '' : ` as ${showShape(value.shape)}`}`
}

const showLayer = ({ scope, backward }: Node): string =>
  [scope, backward ? '(backward)' : ''].filter((part) => part !== '').join(' ')

/** The attributes that are numbers or lists of them, such as strides; formulas are left to the names. */
function showAttributes(attrs: unknown): string {
  if (typeof attrs !== 'object' || attrs === null) return ''
  const isPlain = (value: unknown): boolean =>
    typeof value === 'number' || typeof value === 'boolean' || (Array.isArray(value) && value.every(isPlain))
  return Object.entries(attrs)
    .filter(([, value]) => isPlain(value) && !(Array.isArray(value) && value.length === 0))
    .map(([name, value]) => `${name} ${JSON.stringify(value)}`)
    .join(', ')
}

const nameOf = ({ store, name }: Variable): string => `variable ${store.label}/${name}`

function showLocation(location: Location | undefined, further = 0): string {
  if (!location) return 'nowhere'
  if (location.kind === 'texture') return `t${location.texture}`
  const offset = location.offset + further
  const behind = offset > 0 ? `+${offset}` : ''
  if (location.kind === 'buffer') return `b${location.buffer}${behind}`
  return `${location.kind === 'input' ? `input ${location.name}` : nameOf(location.variable)}${behind}`
}

function printCommands({ commands, variableWrites, locations }: Plan): string {
  const values = (keys: readonly string[]): string =>
    keys.map((key) => `%${key} ${showLocation(locations.get(key))}`).join(', ')
  const row = (command: Command): string[] => {
    if (command.kind === 'host begin' || command.kind === 'host end') {
      const { info } = command
      const flow =
        command.kind === 'host begin' ? `${values(command.reads)} → host` : `host → ${values(command.writes)}`
      return [info.op, info.kernel, megabytes(info.bytes), flow, info.layer]
    }
    if (command.kind !== 'dispatch') {
      const at = (key: string, further = 0): string => `%${key} ${showLocation(locations.get(key), further)}`
      const { fromOffset, toOffset } = { fromOffset: 0, toOffset: 0, ...command }
      const from = command.kind === 'clear' ? 'zeros' : at(command.from, fromOffset)
      const flow = `${from} → ${at(command.to, toOffset)}`
      return [command.info.op, command.info.kernel, megabytes(command.bytes), flow, command.info.layer]
    }
    const { dispatch, info, reads, writes } = command
    const flow = `${values(reads)} → ${values(writes)}`.trimStart()
    return [info.op, info.kernel, `grid ${dispatch.grid.join('×')}`, flow, info.layer]
  }
  const written = variableWrites.map(({ from, variable }) => {
    return [
      'new value of a variable',
      '',
      megabytes(byteLength(variable.spec)),
      `${values([from])} → ${nameOf(variable)}`,
    ]
  })
  return aligned([...commands.map(row), ...written]).join('\n')
}

function printMemory({ nodes }: Trace, { buffers, textures, liveBytes, unsharedBytes }: Plan): string {
  const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + bytes, 0)
  const leaves = nodes.flatMap(({ leaf, outputs }) => (leaf ? outputs.map((spec) => ({ leaf, spec })) : []))
  const bytesOf = (kind: 'input' | 'variable'): number[] =>
    leaves.filter(({ leaf }) => kind in leaf).map(({ spec }) => byteLength(spec))
  const total = (what: string, sizes: readonly number[]) => [what, `${sizes.length}`, megabytes(sum(sizes))]
  return [
    ...aligned([
      total('inputs', bytesOf('input')),
      total('variables that are read', bytesOf('variable')),
      total('buffers of intermediates', buffers),
      total('textures of mirrors', textures.map(mirrorBytes)),
      ['live at once, at most', '', megabytes(liveBytes)],
      ['without sharing', '', megabytes(unsharedBytes)],
    ]),
    ...aligned([
      ...buffers.map((bytes, i) => [`b${i}`, `${bytes} bytes`]),
      ...textures.map((mirror, i) => [`t${i}`, `${mirrorBytes(mirror)} bytes`]),
    ]),
  ].join('\n')
}

/** Rows as lines whose columns begin at the same places. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  // One cell that is much longer than the others must not push all lines apart.
  const width = (i: number): number => Math.min(widths[i] ?? 0, 72)
  return rows.map((row) => `  ${row.map((cell, i) => cell.padEnd(width(i))).join('  ')}`.trimEnd())
}
