import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/io/safetensors.js'

/** The files of the previous models that the last checkpoint of a run needs, relative to its folder. */
export function previousOf(folder: string): string[] {
  const { previous = '[]' } = readSafetensors(join(folder, 'latest.safetensors')).metadata
  return (JSON.parse(previous) as string[]).map((model) => join('previous', `${model}.safetensors`))
}

/** Asserts that weights, momentum buffers, the best model and the previous models of two runs have the same bits. */
export function assertSameRun(actual: string, expected: string): void {
  const files = ['latest.safetensors', 'best.safetensors', ...previousOf(expected)]
  assert.equal(previousOf(actual), previousOf(expected))
  for (const file of files) {
    const { tensors: wanted } = readSafetensors(join(expected, file))
    const { tensors } = readSafetensors(join(actual, file))
    assert.equal([...tensors.keys()], [...wanted.keys()])
    for (const [key, { data }] of wanted) assert.equal(tensors.get(key)?.data, data, `${file}: ${key}`)
  }
}
