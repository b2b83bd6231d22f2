/**
 * A text that differs for values that differ. Of plain data that JSON can hold it is the JSON; what JSON loses or takes
 * for something else (undefined, NaN, infinities, -0, big integers, typed arrays, maps and sets) has a text of its own.
 * Functions and objects of classes, whose insides cannot be compared, are told apart by identity, through a number that
 * holds within this process.
 *
 * @param replace another text for some of the values within; undefined for the others
 */
export function valueText(value: unknown, replace: (part: unknown) => string | undefined = () => undefined): string {
  const visit = (part: unknown): string => {
    const replaced = replace(part)
    if (replaced !== undefined) return replaced
    if (typeof part === 'string') return JSON.stringify(part)
    if (typeof part === 'number') return Object.is(part, -0) ? '-0' : String(part)
    if (typeof part === 'bigint') return `${part}n`
    if (typeof part === 'function') return `function ${identityOf(part)}`
    if (typeof part === 'symbol') return `symbol ${identityOf(part)}`
    if (typeof part !== 'object' || part === null) return String(part)
    // Not by map(), which leaves holes out.
    if (Array.isArray(part)) return `[${Array.from(part, visit)}]`
    if (ArrayBuffer.isView(part) && !(part instanceof DataView)) {
      return `${part.constructor.name}[${Array.from(part as unknown as Iterable<unknown>, visit)}]`
    }
    if (part instanceof Map) return `Map{${[...part].map(([key, entry]) => `${visit(key)}:${visit(entry)}`)}}`
    if (part instanceof Set) return `Set{${Array.from(part, visit)}}`
    if (!isPlain(part)) return `object ${identityOf(part)}`
    return `{${Object.entries(part).map(([key, entry]) => `${JSON.stringify(key)}:${visit(entry)}`)}}`
  }
  return visit(value)
}

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

const numbers = new WeakMap<WeakKey, number>()
let count = 0

/** A number that no other object of this process has. */
export function identityOf(object: WeakKey): number {
  const known = numbers.get(object)
  if (known !== undefined) return known
  numbers.set(object, ++count)
  return count
}
