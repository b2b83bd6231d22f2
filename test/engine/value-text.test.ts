import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { valueText } from '#dist/engine/value-text.js'

class Point {
  constructor(readonly x: number) {}
}

test('values that differ have texts that differ, and equal data has equal texts', () => {
  const make = (): unknown[] => [
    undefined,
    null,
    'null',
    'undefined',
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    0,
    -0,
    1,
    '1',
    1n,
    true,
    [],
    {},
    [undefined],
    [null],
    [[1], 2],
    [1, [2]],
    ['1,2'],
    [1, 2],
    { a: undefined },
    { a: null },
    { a: { b: 1 }, c: 2 },
    { a: { b: 1, c: 2 } },
    Float32Array.of(1, 2),
    Float64Array.of(1, 2),
    Float32Array.of(1, -0),
    BigInt64Array.of(1n, 2n),
    new Map([[1, 2]]),
    new Map([['1', 2]]),
    new Set([1, 2]),
  ]
  const texts = make().map((value) => valueText(value))
  assert.is(new Set(texts).size, texts.length, texts.join('\n'))
  assert.equal(
    make().map((value) => valueText(value)),
    texts,
  )
})

test('functions and objects of classes are the same only as themselves', () => {
  const add = (x: number) => (y: number) => x + y
  const first = add(1)
  assert.is(valueText({ vjp: first }), valueText({ vjp: first }))
  assert.is.not(valueText({ vjp: first }), valueText({ vjp: add(1) }))
  const point = new Point(1)
  assert.is(valueText([point]), valueText([point]))
  assert.is.not(valueText([point]), valueText([new Point(1)]))
})

test('what JSON holds is written as JSON, by which measurements are kept', () => {
  const value = { kind: 'call', args: [{ kind: 'constant', value: 0.1 }, 'x"y', 1e-7, true, null], size: [1, 2] }
  assert.is(valueText(value), JSON.stringify(value))
})

test.run()
