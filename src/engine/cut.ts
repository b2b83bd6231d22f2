import { ceilDiv, type Dispatch } from './kernel.js'
import type { Command, DispatchCommand } from './lower.js'
import { costOf } from './pace.js'

/**
 * Dispatches that cost more than `limit`, see `costOf`, as several that cost less: each runs a part of the workgroups,
 * which compute what they did before. So a GPU that also draws a desktop is free again in time.
 */
export const cutLong = (commands: readonly Command[], limit: number): Command[] =>
  commands.flatMap((command) =>
    command.kind === 'dispatch' && costOf(command.info) > limit
      ? cut(command, ceilDiv(costOf(command.info), limit))
      : [command],
  )

/** A dispatch in about so many parts along the longest axis of its grid. */
function cut(command: DispatchCommand, parts: number): DispatchCommand[] {
  const { dispatch, info } = command
  const { grid } = dispatch
  const axis = grid.indexOf(Math.max(...grid))
  const extent = grid[axis] ?? 1
  const size = ceilDiv(extent, Math.min(parts, extent))
  return Array.from({ length: ceilDiv(extent, size) }, (_, i) => {
    const begin = i * size
    const count = Math.min(size, extent - begin)
    const share = count / extent
    const own = { ...info, bytes: info.bytes * share, multiplyAdds: info.multiplyAdds * share }
    return { ...command, dispatch: partOf(dispatch, axis, begin, count), info: own }
  })
}

function partOf(dispatch: Dispatch, axis: number, begin: number, count: number): Dispatch {
  const along = (value: number, others: (i: number) => number) => [0, 1, 2].map((i) => (i === axis ? value : others(i)))
  const [x = 1, y = 1, z = 1] = along(count, (i) => dispatch.grid[i] ?? 1)
  const first = along(begin, () => 0)
  return { ...dispatch, grid: [x, y, z], source: shifted(dispatch.source, first, dispatch.grid) }
}

/**
 * A shader whose workgroups are numbered from `first` on, within a grid of which a dispatch runs a part. Throws where its
 * entry point is not to be found.
 */
export function shifted(source: string, first: readonly number[], grid: readonly number[]): string {
  const begin = source.indexOf('fn main(')
  const body = source.indexOf('{', begin)
  const size = /@workgroup_size\(([^)]*)\)/.exec(source)?.[1]
  if (begin < 0 || body < 0 || size === undefined) throw new Error('the shader has no entry point main')
  const group = `vec3u(${first.map((value) => `${value}u`).join(', ')})`
  const extents = [...size.split(',').filter((text) => text.trim()), '1', '1'].slice(0, 3)
  const values: readonly (readonly [builtin: string, value: (given: string) => string])[] = [
    ['workgroup_id', (given) => `${given} + ${group}`],
    ['global_invocation_id', (given) => `${given} + ${group} * vec3u(${extents.join(', ')})`],
    ['num_workgroups', () => `vec3u(${grid.map((value) => `${value}u`).join(', ')})`],
  ]
  let parameters = source.slice(begin, body)
  const lines = values.flatMap(([builtin, value]) => {
    const found = new RegExp(`@builtin\\(${builtin}\\)\\s*(\\w+)`).exec(parameters)
    const [text, name] = found ?? []
    if (text === undefined || name === undefined) return []
    const given = `part_${name}`
    parameters = parameters.replace(text, text.replace(new RegExp(`${name}$`), given))
    return [`  let ${name} = ${value(given)};`]
  })
  return `${source.slice(0, begin)}${parameters}{\n${lines.join('\n')}${source.slice(body + 1)}`
}
