import type { Device } from '../../engine/device.js'
import type { Tensor } from '../../engine/ir.js'
import { type CompileOptions, compile, type Program } from '../../engine/program.js'
import type { MethodRun, Tensors } from '../methods/method.js'

/** Compiles the programs of a method beside its step. */
export async function compileFurther(device: Device, run: MethodRun, shared: CompileOptions): Promise<Program[]> {
  const programs: Program[] = []
  await run.compile?.(async (label, inputs, body) => {
    const program = await compile(device, inputs, body as (tensors: Readonly<Record<string, Tensor>>) => Tensors, {
      label,
      ...shared,
    })
    programs.push(program as unknown as Program)
    return program
  })
  return programs
}
