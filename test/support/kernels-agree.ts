import * as assert from 'uvu/assert'
import { type Measurement, Tuning } from '#dist/engine/autotune.js'
import type { Device } from '#dist/engine/device.js'
import type { Trace } from '#dist/engine/ir.js'
import { measureKernels } from '#dist/engine/measure-kernels.js'
import type { Program } from '#dist/engine/program.js'

/** Measures all kernels of a program's calls with such names, of which there must be so many: none may be refused or differ. */
export async function assertKernelsAgree(device: Device, program: Program, name: RegExp, count: number): Promise<void> {
  const trace: Trace = { nodes: program.nodes, inputs: new Map(), outputs: new Map(), assigned: new Map() }
  const calls = (await new Tuning().calls(trace, device.traits)).filter(({ node }) => name.test(node.name))
  program.destroy()
  assert.is(calls.length, count)
  const measured: Measurement[] = []
  await measureKernels(device, calls, (measurement) => void measured.push(measurement))
  for (const { call, kernels, milliseconds, wrong } of measured) {
    assert.ok(kernels.length > 1)
    assert.is(wrong, undefined, `${call}: ${wrong}`)
    assert.not(milliseconds.includes(null), call)
  }
}
