// What the rows of the table do not show of attention: how its memory grows, and what it says of operands that do not fit.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { attention } from '#dist/kernels/attention.js'
import { grad } from '#dist/kernels/autograd.js'
import { sum } from '#dist/kernels/pointwise.js'
import { nullDevice } from '../support/null-device.js'

/** Bytes of a program that computes attention of a map of tokens on itself, and its gradients. */
async function bytesOf(tokens: number): Promise<number> {
  const device = nullDevice()
  const shape = spec([2, tokens, 64])
  const body = ({ q, k, v }: Record<'q' | 'k' | 'v', Tensor>) => {
    const y = attention(q, k, v, { heads: 2 })
    const [dq, dk, dv] = grad(sum(y), [q, k, v]) as [Tensor, Tensor, Tensor]
    return { y, dq, dk, dv }
  }
  const program = await compile(device, { q: shape, k: shape, v: shape }, body)
  return program.memory.planned
}

test('memory grows as the number of tokens', async () => {
  const [few, many] = [await bytesOf(4096), await bytesOf(16384)]
  assert.ok(many <= 4.01 * few, `${few} and ${many} bytes`)
  // The scores of one head alone are more.
  assert.ok(many < 16384 ** 2 * 4, `${many} bytes`)
})

test('operands that do not fit are named', async () => {
  const messageOf = async (shapes: readonly (readonly number[])[], heads: number): Promise<string> => {
    const [q, k, v] = shapes.map((shape) => spec(shape)) as [never, never, never]
    try {
      await compile(nullDevice(), { q, k, v }, (t) => ({ y: attention(t.q, t.k, t.v, { heads }) }))
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }
  const k = [2, 5, 12]
  assert.match(await messageOf([[2, 7, 12], k, k], 5), '12 channels do not divide into 5 heads')
  assert.match(await messageOf([[2, 7, 8], k, k], 2), 'differ in samples or channels')
  assert.match(await messageOf([[7, 12], k, k], 2), 'expects queries [N, L, C]')
  assert.match(await messageOf([[2, 7, 12], k, [2, 6, 12]], 2), 'of one shape')
  const wide = [1, 4, 512]
  assert.match(await messageOf([wide, wide, wide], 1), 'use more heads')
})

test.run()
