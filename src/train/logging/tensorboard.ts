import { closeSync, mkdirSync, openSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { WriteError } from '../error.js'
import { AppendFile } from '../io/append-file.js'
import { reasonOf } from '../io/files.js'
import { double, float, integer, type Message, nested, text } from '../io/protobuf.js'
import type { MetricSpec } from '../methods/method.js'

/**
 * TensorBoard's event files: a sequence of TFRecords, each an `Event` message of
 * https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto.
 */

/** A number of a run under the name that TensorBoard shows. */
export interface Scalar {
  readonly tag: string
  readonly value: number
  readonly step: number
}

/** Appends to an event file. */
export interface EventWriter {
  /** Where the file is. */
  readonly path: string
  /**
   * Appends a number; it is in the file when this returns.
   * @param step a whole number from 0
   * @throws WriteError if it is not in the file yet: it will go before the next one
   */
  scalar(tag: string, value: number, step: number): void
  /** Ends the writing. May be called twice. */
  close(): void
}

export interface EventWriterOptions {
  /** The step at which a run resumes: TensorBoard drops what earlier files say of this step and later ones. */
  readonly resumedAt?: number
  /** Seconds since 1970. */
  readonly now?: () => number
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
  return crc
})

/** CRC-32C (Castagnoli), RFC 3720 appendix B.4. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0)
  return (crc ^ 0xffffffff) >>> 0
}

/** The checksum of a TFRecord: rotated and shifted, since records may hold checksums themselves. */
const maskedCrc = (bytes: Uint8Array): number => {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** A TFRecord: length (uint64), its masked CRC, the bytes, their masked CRC; little-endian. */
export function tfRecord(bytes: Uint8Array): Uint8Array {
  const record = Buffer.alloc(bytes.length + 16)
  record.writeBigUInt64LE(BigInt(bytes.length))
  record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8)
  record.set(bytes, 12)
  record.writeUInt32LE(maskedCrc(bytes), bytes.length + 12)
  return record
}

/** `Event {wall_time = 1, step = 2, …}`; a step of 0 is the default, which the format leaves out. */
const event = (time: number, step: number, content: Message): Uint8Array =>
  tfRecord(Buffer.concat([...double(1, time), ...(step === 0 ? [] : integer(2, step)), ...content]))

const fileVersion = text(3, 'brain.Event:2')
/** `SessionLog {status = START}` */
const sessionStart = nested(7, integer(1, 1))

/** `Summary {value: [Value {tag = 1, simple_value = 2}]}` */
const summary = (tag: string, value: number): Message => nested(5, nested(1, [...text(1, tag), ...float(2, value)]))

/**
 * Begins a new event file in a folder, beside those of earlier processes: TensorBoard reads all of them as one run.
 * @throws WriteError if the file cannot be made
 */
export function createEventWriter(folder: string, options: EventWriterOptions = {}): EventWriter {
  const now = options.now ?? (() => Date.now() / 1000)
  const path = createFile(folder, Math.floor(now()))
  const version = event(now(), 0, fileVersion)
  const { resumedAt } = options
  const head = resumedAt === undefined ? [version] : [version, event(now(), checkStep(resumedAt), sessionStart)]
  const file = new AppendFile(path, 0, Buffer.concat(head))
  file.sync()
  let open = true
  return {
    path,
    scalar(tag, value, step) {
      if (!open) throw new Error(`${path} is closed`)
      file.append(event(now(), checkStep(step), summary(tag, value)))
    },
    close() {
      open = false
    },
  }
}

/** TensorBoard reads a folder's files in the order of their names, so the time comes first. */
function createFile(folder: string, seconds: number): string {
  const name = `events.out.tfevents.${String(seconds).padStart(10, '0')}`
  for (let count = 0; ; count++) {
    const path = join(folder, `${name}.${count}.${process.pid}.${hostname()}`)
    try {
      mkdirSync(folder, { recursive: true })
      closeSync(openSync(path, 'wx'))
      return path
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EEXIST' && count < 1000) continue
      throw new WriteError(path, reasonOf(error))
    }
  }
}

function checkStep(step: number): number {
  if (!Number.isSafeInteger(step) || step < 0) throw new RangeError(`step ${step} is not a whole number from 0`)
  return step
}

type Fields = Readonly<Record<string, unknown>>

/** Tags under `train/` beside those of the metrics, and their values. */
const furtherTags = {
  'iter time': ({ seconds, data }) =>
    typeof seconds === 'number' && typeof data === 'number' ? seconds - data : undefined,
  lr: ({ lr }) => lr,
  'loss scale': ({ loss_scale }) => loss_scale,
  'skipped steps': ({ skipped_steps }) => skipped_steps,
} satisfies Record<string, (fields: Fields) => unknown>

/** Tags under `train/` and their values: of the total loss, then those that the metrics name. */
function metricTags(fields: Fields, metrics: readonly MetricSpec[]): Map<string, unknown> {
  const sums = new Map<string, unknown>([['Total loss', fields.total_loss]])
  const missing = new Set<string>()
  for (const { name, tensorboard = [] } of metrics) {
    const value = fields[name]
    for (const [tag, share] of tensorboard) {
      if (typeof value !== 'number') missing.add(tag)
      else sums.set(tag, share * value + Number(sums.get(tag) ?? 0))
    }
  }
  for (const tag of missing) sums.delete(tag)
  return sums
}

/**
 * The scalars of a line of log.jsonl under the names and at the steps of the PrevMatch code: `train/Total loss` … by
 * iteration counted from 0, `eval/mIoU` and `eval/<class>_IoU` in percent by epoch counted from 0. `train/lr` is added, and
 * in half precision `train/loss scale` and `train/skipped steps`.
 * @param metrics of the method
 * @param classNames names of the classes; a class without one is shown by its index
 */
export function scalarsOf(
  event: string,
  fields: Fields,
  metrics: readonly MetricSpec[] = [],
  classNames: readonly string[] = [],
): Scalar[] {
  const scalar = (tag: string, value: unknown, step: unknown): Scalar[] =>
    typeof value === 'number' && typeof step === 'number' ? [{ tag, value, step }] : []
  if (event === 'train') {
    const step = typeof fields.iteration === 'number' ? fields.iteration - 1 : undefined
    const further = Object.entries(furtherTags).map(([tag, value]): [string, unknown] => [tag, value(fields)])
    return [...metricTags(fields, metrics), ...further].flatMap(([tag, value]) => scalar(`train/${tag}`, value, step))
  }
  if (event !== 'evaluation') return []
  const classes: unknown[] = Array.isArray(fields.iou) ? fields.iou : []
  return [
    ...scalar('eval/mIoU', fields.miou, fields.epoch),
    ...classes.flatMap((iou, k) => scalar(`eval/${classNames[k] ?? k}_IoU`, iou, fields.epoch)),
  ]
}
