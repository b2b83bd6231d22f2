import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assignBuffers, assignTextures, type Interval, livePeak } from '#dist/engine/buffers.js'
import { Random } from '../../cases/case.js'

function randomIntervals(random: Random, count: number): Interval[] {
  const apart = Array.from({ length: count }, () => new Set<string>())
  for (let k = 0; k < count; k++) {
    const [a, b] = [random.integer(count), random.integer(count)]
    apart[a]?.add(`v${b}`)
    apart[b]?.add(`v${a}`)
  }
  return apart.map((others, i) => {
    const first = random.integer(200)
    const bytes = 100 * (1 + random.integer(30))
    return { key: `v${i}`, bytes, first, last: first + random.integer(60), apart: others }
  })
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)

test('values that live at the same time do not overlap, and lie in different buffers where they must', () => {
  let [beside, kept] = [0, 0]
  for (let seed = 0; seed < 50; seed++) {
    const values = randomIntervals(new Random(`slots ${seed}`), 40)
    const { sizes, ranges } = assignBuffers(values, true)
    const rangeOf = (key: string) => ranges.get(key) ?? { buffer: -1, offset: 0, bytes: 0 }
    for (const [i, a] of values.entries()) {
      const at = rangeOf(a.key)
      assert.is(at.bytes, a.bytes)
      assert.is(at.offset % 256, 0)
      assert.ok(at.offset + at.bytes <= (sizes[at.buffer] ?? 0), `${a.key} reaches beyond its buffer`)
      for (const b of values.slice(i + 1)) {
        const other = rangeOf(b.key)
        if (a.first > b.last || b.first > a.last || at.buffer !== other.buffer) continue
        const disjoint = at.offset + at.bytes <= other.offset || other.offset + other.bytes <= at.offset
        assert.ok(disjoint, `seed ${seed}: ${a.key} and ${b.key} overlap in buffer ${at.buffer}`)
        assert.not.ok(a.apart.has(b.key), `seed ${seed}: ${a.key} and ${b.key} share buffer ${at.buffer}`)
        beside++
      }
      kept += a.apart.size
    }
    assert.ok(Math.max(...sizes) <= Math.max(...values.map(({ bytes }) => bytes)))
    const live = Array.from({ length: 260 }, (_, at) =>
      sum(values.filter(({ first, last }) => first <= at && at <= last).map(({ bytes }) => bytes)),
    )
    assert.is(livePeak(values), Math.max(...live))
    assert.ok(sum(sizes) >= livePeak(values))
    assert.is(sum(assignBuffers(values, false).sizes), sum(values.map(({ bytes }) => bytes)))
  }
  assert.ok(beside > 100 && kept > 100, `${beside} pairs side by side, ${kept} kept apart`)
})

test('mirrors that live at the same time have textures of their own, each of its format', () => {
  for (let seed = 0; seed < 50; seed++) {
    const random = new Random(`textures ${seed}`)
    const wanted = randomIntervals(random, 40).map(({ key, first, last, bytes }) => {
      const format = random.integer(2) === 0 ? ('rgba16float' as const) : ('rgba32float' as const)
      return { key, first, last, mirror: { format, rows: bytes } }
    })
    const { mirrors, places } = assignTextures(wanted, true)
    assert.ok(mirrors.length < wanted.length)
    for (const [i, a] of wanted.entries()) {
      const texture = places.get(a.key) ?? -1
      assert.is(mirrors[texture]?.format, a.mirror.format)
      assert.ok((mirrors[texture]?.rows ?? 0) >= a.mirror.rows)
      for (const b of wanted.slice(i + 1))
        assert.ok(
          places.get(b.key) !== texture || a.last < b.first || b.last < a.first,
          `seed ${seed}: ${a.key}, ${b.key}`,
        )
    }
    assert.is(assignTextures(wanted, false).mirrors.length, wanted.length)
  }
})

test.run()
