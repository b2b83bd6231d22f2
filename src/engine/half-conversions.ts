/** Lanes of the types of f16, by their names in a shader. */
const typeNames = { f16: 1, 'vec2<f16>': 2, 'vec3<f16>': 3, 'vec4<f16>': 4, vec2h: 2, vec3h: 3, vec4h: 4 } as const

type Lanes = (typeof typeNames)[keyof typeof typeNames]

/** The functions that stand for conversions of one, two, three or four numbers. */
const functionOf = (lanes: Lanes): string => `half_of_${lanes}`

const floats: Readonly<Record<Lanes, string>> = { 1: 'f32', 2: 'vec2f', 3: 'vec3f', 4: 'vec4f' }

/**
 * A shader whose every conversion to f16 (`f16(x)`, `vec4h(v)`, and those of its aliases) is a call of a function instead.
 * Constructors of several parts stay: WGSL wants parts that are f16 already.
 *
 * @param bitsOf body of a function of `x: f32` that returns the bits of an f16 as u32
 */
export function replaceHalfConversions(source: string, bitsOf: string): string {
  const aliases = [...source.matchAll(/^alias (\w+) = (f16|vec[234](?:h|<f16>));/gm)]
  const lanesOf = new Map<string, Lanes>([
    ...(Object.entries(typeNames) as [string, Lanes][]),
    ...aliases.flatMap(([, name = '', type = '']) => {
      const lanes = typeNames[type as keyof typeof typeNames]
      // Vectors of it as well.
      const vectors = ([2, 3, 4] as const).map((count): [string, Lanes] => [`vec${count}<${name}>`, count])
      return [[name, lanes] as [string, Lanes], ...(lanes === 1 ? vectors : [])]
    }),
  ])
  const names = [...lanesOf.keys()].join('|')
  const conversion = new RegExp(`(?<![\\w<])(${names})\\(`, 'g')
  const used = new Set<Lanes>()
  const convert = (text: string): string => {
    let result = ''
    let from = 0
    for (const match of text.matchAll(conversion)) {
      const begin = match.index + match[0].length
      if (match.index < from || isComment(text, match.index)) continue
      const parts = argumentsAt(text, begin)
      const lanes = lanesOf.get(match[1] ?? '') ?? 1
      const isConversion = parts.list.length === 1 && !/^[\d.]*[uifh]?$/.test(parts.list[0]?.trim() ?? '')
      const inner = parts.list.map(convert).join(',')
      if (isConversion) used.add(lanes)
      result += text.slice(from, match.index)
      result += isConversion ? `${functionOf(lanes)}(${floats[lanes]}(${inner}))` : `${match[0]}${inner})`
      from = parts.end
    }
    return result + text.slice(from)
  }
  const converted = convert(source)
  if (used.size === 0) return source
  const vectors = [...used].filter((lanes) => lanes > 1).map(vectorFunction)
  return `${converted}
fn half_bits(x: f32) -> u32 {
${bitsOf}
}
fn half_of_1(x: f32) -> f16 {
  return bitcast<vec2<f16>>(half_bits(x)).x;
}
${vectors.join('')}`
}

function vectorFunction(lanes: Lanes): string {
  const parts = ['x', 'y', 'z', 'w'].slice(0, lanes).map((part) => `${functionOf(1)}(v.${part})`)
  return `fn ${functionOf(lanes)}(v: ${floats[lanes]}) -> vec${lanes}<f16> {
  return vec${lanes}<f16>(${parts.join(', ')});
}
`
}

const isComment = (text: string, at: number): boolean => text.slice(text.lastIndexOf('\n', at) + 1, at).includes('//')

/** The arguments of a call, whose first begins at `start`, and where the call ends. */
function argumentsAt(text: string, start: number): { list: string[]; end: number } {
  const list: string[] = []
  let depth = 0
  let from = start
  for (let at = start; at < text.length; at++) {
    const letter = text[at] ?? ''
    if ('([{'.includes(letter)) depth++
    if (depth === 0 && (letter === ',' || letter === ')')) {
      list.push(text.slice(from, at))
      from = at + 1
      if (letter === ')') return { list, end: at + 1 }
    }
    if (')]}'.includes(letter)) depth--
  }
  throw new Error('a call of the shader has no end')
}
