import type { Fail } from './byte-source.js'

/** What an allowed global name of a pickle may be called with. */
export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: readonly unknown[]) => unknown,
  ) {}
}

/**
 * A class of another program, and whatever a pickle makes of it: its name, and nothing else. Hyper-parameters and
 * callbacks that stand beside the weights are such.
 */
export class Foreign {
  constructor(readonly name: string) {}
}

/** What a pickle may refer to. */
export interface PickleWorld {
  /** Values of the globals `module.name`; any other one is `Foreign`. */
  readonly globals: ReadonlyMap<string, unknown>
  /** What a persistent id stands for. */
  readonly persistent: (id: unknown) => unknown
}

/** A ResNet-101 with its momentum buffers takes some ten thousand; the least step may cost an object of 200 bytes. */
const maxSteps = 1_000_000
const maxStack = 100_000
const maxMarks = 1000
const maxIntegerBytes = 64
const maxName = 256

/** Functions, beside classes, that pickles of data call. What they would give is not made. */
const harmless = [
  /^(builtins|__builtin__)\.(set|frozenset|bytearray|complex|slice|range|list|dict|tuple)$/,
  /^(collections\.(deque|defaultdict)|copy_?reg\._reconstructor|functools\.partial|datetime\.\w+)$/,
  /^numpy(\.\w+)*\.(_reconstruct|ndarray|scalar|_frombuffer)$/,
  /^numpy\.random\._pickle\.\w+$/,
  /^torch\.(device|dtype|_utils\.\w+|storage\.\w+)$/,
]
/** Modules of which a file of weights has nothing to call. */
const system = /^(os|posix|nt|sys|subprocess|multiprocessing|shutil|runpy|importlib|code|codeop|ctypes|pty|socket)\./
const isClass = (name: string): boolean => /\._*[A-Z]\w*$/.test(name) && !system.test(name)

/** The end of a message about a name that is not read. */
export const notRead = (name: string): string =>
  `its pickle names ${quoted(name)}, which is not read: save only the state_dict, as tensors`

const isList = (value: unknown): value is ArrayLike<unknown> =>
  typeof value === 'string' || Array.isArray(value) || value instanceof Uint8Array

/** A text of a file, fit for one line of an error. */
export const quoted = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text)

/**
 * Reads one pickle (protocols 2 to 5) without executing anything: only the opcodes that data need, and only the
 * globals of `world`; instances of any other class stay empty, and calls of any other function are refused by its name.
 * Lists, tuples and sets become arrays, dictionaries Maps, integers numbers or bigints.
 *
 * @param start where the pickle begins
 * @returns the value, and where the pickle ends
 */
export function unpickle(bytes: Uint8Array, start: number, world: PickleWorld, fail: Fail): [unknown, number] {
  const reader = new Unpickler(bytes, start, world, fail)
  const value = reader.run()
  return [value, reader.at]
}

class Unpickler {
  private steps = 0
  private stack: unknown[] = []
  private readonly marks: unknown[][] = []
  private readonly memo = new Map<number, unknown>()
  private readonly foreign = new Map<string, Foreign>()
  private readonly view: DataView

  constructor(
    private readonly bytes: Uint8Array,
    public at: number,
    private readonly world: PickleWorld,
    private readonly fail: Fail,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  run(): unknown {
    for (;;) {
      this.spend(1)
      const opcode = this.uint(1)
      if (opcode === STOP) return this.pop()
      const step = opcodes.get(opcode)
      if (!step) {
        const letter = opcode > 32 && opcode < 127 ? ` '${String.fromCharCode(opcode)}'` : ''
        return this.fail(`its pickle uses the opcode 0x${opcode.toString(16)}${letter}, which is not read`)
      }
      step(this)
      if (this.stack.length > maxStack) this.fail(`its pickle stacks more than ${maxStack} values`)
    }
  }

  spend(steps: number): void {
    this.steps += steps
    if (this.steps > maxSteps) this.fail(`its pickle takes more than ${maxSteps} steps`)
  }

  /** The next `length` bytes. */
  take(length: number): Uint8Array {
    const end = this.at + length
    if (end > this.bytes.length) this.fail('its pickle breaks off, or is too long')
    const part = this.bytes.subarray(this.at, end)
    this.at = end
    return part
  }

  /** An unsigned integer of 1, 2, 4 or 8 bytes. */
  uint(size: 1 | 2 | 4 | 8): number {
    const at = this.at
    this.take(size)
    if (size === 1) return this.view.getUint8(at)
    if (size === 2) return this.view.getUint16(at, true)
    if (size === 4) return this.view.getUint32(at, true)
    return Number(this.view.getBigUint64(at, true))
  }

  int32(): number {
    return this.uint(4) | 0
  }

  float64(): number {
    this.take(8)
    return this.view.getFloat64(this.at - 8, false)
  }

  /** A little-endian integer in two's complement. */
  long(size: number): number | bigint {
    if (size > maxIntegerBytes) this.fail(`its pickle holds an integer of ${size} bytes`)
    const part = this.take(size)
    let value = 0n
    for (const byte of [...part].reverse()) value = (value << 8n) | BigInt(byte)
    value = BigInt.asIntN(8 * size, value)
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value
  }

  text(length: number): string {
    return new TextDecoder().decode(this.take(length))
  }

  line(): string {
    const end = this.bytes.indexOf(10, this.at)
    if (end < 0 || end - this.at > 1000) return this.fail('its pickle holds an endless name')
    const text = this.text(end - this.at)
    this.at++
    return text
  }

  push(value: unknown): void {
    this.stack.push(value)
  }

  pop(): unknown {
    if (this.stack.length === 0) this.fail('its pickle takes a value where there is none')
    return this.stack.pop()
  }

  top(): unknown {
    if (this.stack.length === 0) this.fail('its pickle takes a value where there is none')
    return this.stack.at(-1)
  }

  mark(): void {
    if (this.marks.length >= maxMarks) this.fail(`its pickle is nested more than ${maxMarks} deep`)
    this.marks.push(this.stack)
    this.stack = []
  }

  /** The values since the last mark, which goes. */
  sinceMark(): unknown[] {
    const values = this.stack
    this.stack = this.marks.pop() ?? this.fail('its pickle lacks a mark')
    return values
  }

  tuple(length: number): void {
    if (this.stack.length < length) this.fail('its pickle takes a value where there is none')
    this.push(this.stack.splice(-length))
  }

  append(values: readonly unknown[]): void {
    const list = this.top()
    if (list instanceof Foreign) return
    if (!Array.isArray(list)) this.fail('its pickle appends to something that is not a list')
    for (const value of values) list.push(value)
  }

  setItems(values: readonly unknown[]): void {
    const items = this.top()
    if (items instanceof Foreign) return
    if (!(items instanceof Map)) this.fail('its pickle sets items of something that is not a dictionary')
    for (let i = 0; i + 1 < values.length; i += 2) items.set(values[i], values[i + 1])
  }

  put(index: number): void {
    this.memo.set(index, this.top())
  }

  memoize(): void {
    this.put(this.memo.size)
  }

  get(index: number): void {
    if (!this.memo.has(index)) this.fail('its pickle recalls a value that it never stored')
    this.push(this.memo.get(index))
  }

  global(module: unknown, name: unknown): void {
    if (typeof module !== 'string' || typeof name !== 'string' || module.length + name.length > maxName) {
      this.fail('its pickle names what is no name')
    }
    const full = `${module}.${name}`
    const known = this.world.globals.get(full) ?? this.foreign.get(full) ?? new Foreign(full)
    if (known instanceof Foreign) this.foreign.set(full, known)
    this.push(known)
  }

  reduce(): void {
    const args = this.pop()
    const target = this.pop()
    if (target instanceof Foreign) {
      if (!isClass(target.name) && !harmless.some((names) => names.test(target.name))) this.fail(notRead(target.name))
      this.push(target)
      return
    }
    if (!(target instanceof Callable) || !Array.isArray(args)) this.fail('its pickle calls what is no function')
    // What a call copies may be recalled and copied again by the next one.
    for (const arg of args) this.spend(isList(arg) ? arg.length : 0)
    this.push(target.call(args))
  }

  /** The state of an object: attributes of a dictionary (PyTorch keeps version numbers there) and of a dtype. */
  build(): void {
    const state = this.pop()
    const target = this.top()
    if (target instanceof Map || target instanceof Foreign) return
    if (!(target instanceof NumpyType)) this.fail('its pickle sets the state of what has none')
    if (Array.isArray(state) && state[1] === '>') this.fail('it holds big-endian numbers')
  }

  persistent(): void {
    this.push(this.world.persistent(this.pop()))
  }
}

/** A numpy dtype, such as f8. */
export class NumpyType {
  constructor(readonly name: string) {}
}

const STOP = 0x2e

/** The opcodes that are read; names as in Python's pickletools. */
const opcodes = new Map<number, (u: Unpickler) => void>([
  // PROTO, FRAME: the length of a frame is of no use here.
  [0x80, (u) => void u.take(1)],
  [0x95, (u) => void u.take(8)],
  // NONE, NEWTRUE, NEWFALSE
  [0x4e, (u) => u.push(null)],
  [0x88, (u) => u.push(true)],
  [0x89, (u) => u.push(false)],
  // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
  [0x4a, (u) => u.push(u.int32())],
  [0x4b, (u) => u.push(u.uint(1))],
  [0x4d, (u) => u.push(u.uint(2))],
  [0x8a, (u) => u.push(u.long(u.uint(1)))],
  [0x8b, (u) => u.push(u.long(u.uint(4)))],
  [0x47, (u) => u.push(u.float64())],
  // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; SHORT_BINSTRING and BINSTRING, the texts of Python 2
  [0x8c, (u) => u.push(u.text(u.uint(1)))],
  [0x58, (u) => u.push(u.text(u.uint(4)))],
  [0x8d, (u) => u.push(u.text(u.uint(8)))],
  [0x55, (u) => u.push(u.text(u.uint(1)))],
  [0x54, (u) => u.push(u.text(u.uint(4)))],
  // SHORT_BINBYTES, BINBYTES, BINBYTES8
  [0x43, (u) => u.push(u.take(u.uint(1)))],
  [0x42, (u) => u.push(u.take(u.uint(4)))],
  [0x8e, (u) => u.push(u.take(u.uint(8)))],
  // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, MARK, TUPLE
  [0x29, (u) => u.push([])],
  [0x85, (u) => u.tuple(1)],
  [0x86, (u) => u.tuple(2)],
  [0x87, (u) => u.tuple(3)],
  [0x28, (u) => u.mark()],
  [0x74, (u) => u.push(u.sinceMark())],
  // EMPTY_LIST, APPEND, APPENDS
  [0x5d, (u) => u.push([])],
  [0x61, (u) => u.append([u.pop()])],
  [0x65, (u) => u.append(u.sinceMark())],
  // EMPTY_DICT, SETITEM, SETITEMS
  [0x7d, (u) => u.push(new Map())],
  [0x73, (u) => u.setItems([u.pop(), u.pop()].reverse())],
  [0x75, (u) => u.setItems(u.sinceMark())],
  // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
  [0x71, (u) => u.put(u.uint(1))],
  [0x72, (u) => u.put(u.uint(4))],
  [0x94, (u) => u.memoize()],
  [0x68, (u) => u.get(u.uint(1))],
  [0x6a, (u) => u.get(u.uint(4))],
  // EMPTY_SET, ADDITEMS, FROZENSET, BYTEARRAY8
  [0x8f, (u) => u.push([])],
  [0x90, (u) => u.append(u.sinceMark())],
  [0x91, (u) => u.push(u.sinceMark())],
  [0x96, (u) => u.push(u.take(u.uint(8)))],
  // GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
  [0x63, (u) => u.global(u.line(), u.line())],
  [
    0x93,
    (u) => {
      const name = u.pop()
      u.global(u.pop(), name)
    },
  ],
  [0x52, (u) => u.reduce()],
  [0x81, (u) => u.reduce()],
  [
    0x92,
    (u) => {
      // Arguments by name say nothing that is read.
      u.pop()
      u.reduce()
    },
  ],
  [0x62, (u) => u.build()],
  [0x51, (u) => u.persistent()],
])
