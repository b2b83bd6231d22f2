import { inflateSync } from 'node:zlib'
import {
  type Code,
  compileModule,
  doWhile,
  type FunctionCode,
  functionOf,
  i8x16,
  i32,
  ifElse,
  increase,
  select,
  v128,
} from './wasm.js'

/** Predicts a byte from those to the left, above, and above to the left. */
type Prediction = (left: Code, above: Code, corner: Code) => Code

/** Adds the row above to a row as it is stored, 16 bytes at a time. */
const addAbove = functionOf(['stored', 'above', 'row', 'end'], ({ stored, above, row, end }) => [
  doWhile(
    [
      v128.store(row.get, i8x16.add(v128.load(stored.get), v128.load(above.get))),
      ...[stored, above, row].map((at) => increase(at, i32.const(16))),
    ],
    i32.ltU(row.get, end.get),
  ),
])

/** Adds predictions to one channel of a row as it is stored. */
const filterOf = (predict: Prediction): FunctionCode =>
  functionOf(['stored', 'rowAbove', 'row', 'end', 'step'], ({ stored, rowAbove, row, end, step }, further) => {
    // These begin as 0.
    const [left, above, corner] = [further.i32(), further.i32(), further.i32()]
    const addPrediction = [
      above.set(i32.load8U(rowAbove.get)),
      left.set(i32.add(i32.load8U(stored.get), predict(left.get, above.get, corner.get))),
      left.set(i32.and(left.get, i32.const(255))),
      i32.store8(row.get, left.get),
      corner.set(above.get),
      ...[stored, rowAbove, row].map((at) => increase(at, step.get)),
    ]
    return [doWhile(addPrediction, i32.ltU(row.get, end.get))]
  })

const distance = (a: Code, b: Code): Code => select(i32.sub(b, a), i32.sub(a, b), i32.ltU(a, b))

/** Paeth's: the neighbour that is closest to left + above - corner. In flat parts, as labels have them, that is `left`. */
const paeth: Prediction = (left, above, corner) => {
  const toLeft = distance(above, corner)
  const toAbove = distance(left, corner)
  const toCorner = distance(i32.add(left, above), i32.add(corner, corner))
  const isLeft = i32.and(i32.leU(toLeft, toAbove), i32.leU(toLeft, toCorner))
  const closest = select(left, select(above, corner, i32.leU(toAbove, toCorner)), isLeft)
  return ifElse(i32.eq(above, corner), left, closest)
}

const { call, memory } = compileModule({
  addAbove,
  addLeft: filterOf((left) => left),
  addMean: filterOf((left, above) => i32.shrU(i32.add(left, above), i32.const(1))),
  addPaeth: filterOf(paeth),
})

type Filter = (stored: number, above: number, row: number, bytes: number, step: number) => void

const byChannel =
  (add: typeof call.addLeft): Filter =>
  (stored, above, row, bytes, step) => {
    for (let c = 0; c < step; c++) add(stored + c, above + c, row + c, row + bytes, step)
  }

/** The filters of PNG by their numbers in the file, from 1; 0 is none. */
const filters: readonly Filter[] = [
  byChannel(call.addLeft),
  (stored, above, row, bytes) => call.addAbove(stored, above, row, row + bytes),
  byChannel(call.addMean),
  byChannel(call.addPaeth),
]

/** Inflated data, or undefined where it is damaged or has another length. */
function inflated(compressed: Uint8Array, bytes: number): Uint8Array | undefined {
  try {
    const data = inflateSync(compressed, { maxOutputLength: bytes, chunkSize: Math.max(64, bytes) })
    return data.length === bytes ? data : undefined
  } catch {
    return undefined
  }
}

/** Rows are worked on in parts of about so many bytes. */
const PART_BYTES = 2 ** 17

/**
 * The pixels of rows of whole bytes, one after the other.
 * @param compressed the data of a PNG file
 * @param step bytes of a pixel
 * @returns undefined where the data is damaged, or not of this length
 */
export function rowsOf(compressed: Uint8Array, width: number, height: number, step: number): Uint8Array | undefined {
  const rowBytes = width * step
  const storedBytes = 1 + rowBytes
  const data = inflated(compressed, height * storedBytes)
  if (!data) return undefined
  const pixels = new Uint8Array(height * rowBytes)
  const most = Math.max(1, Math.min(height, Math.floor(PART_BYTES / rowBytes)))
  // Before the rows of a part lies the row above them, which is 0 at first.
  const { stored, above } = memory.reserve({ stored: most * storedBytes, above: (1 + most) * rowBytes })
  const storedPart = memory.bytes(stored, most * storedBytes)
  const part = memory.bytes(above, (1 + most) * rowBytes)
  part.fill(0, 0, rowBytes)
  for (let first = 0; first < height; first += most) {
    const count = Math.min(most, height - first)
    storedPart.set(data.subarray(first * storedBytes, (first + count) * storedBytes))
    for (let y = 0; y < count; y++) {
      const at = y * storedBytes + 1
      const number = storedPart[at - 1] as number
      const filter = filters[number - 1]
      if (number === 0) part.set(storedPart.subarray(at, at + rowBytes), (1 + y) * rowBytes)
      else if (filter) filter(stored + at, above + y * rowBytes, above + (1 + y) * rowBytes, rowBytes, step)
      else return undefined
    }
    pixels.set(part.subarray(rowBytes, (1 + count) * rowBytes), first * rowBytes)
    part.copyWithin(0, count * rowBytes, (1 + count) * rowBytes)
  }
  return pixels
}
