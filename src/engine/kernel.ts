import type { AdapterTraits } from './adapter.js'
import type { MirrorFormat } from './mirror.js'
import type { Data, Spec } from './shape.js'

/** A buffer that a dispatch binds, named by its role in the operator. */
export interface Operand {
  readonly role: 'input' | 'output' | 'temporary'
  readonly index: number
  /** Bound as the texture that mirrors it, see `mirror.ts`; of what is read alone. */
  readonly mirror?: MirrorFormat
}
export const inputBuffer = (index: number): Operand => ({ role: 'input', index })
export const outputBuffer = (index: number): Operand => ({ role: 'output', index })
export const temporaryBuffer = (index: number): Operand => ({ role: 'temporary', index })

/**
 * One dispatch. Its shader binds at group 0: the uniforms at 0 (absent when there are none), then `reads`
 * (read-only storage, of mirrors `texture_storage_2d<FORMAT, read>`), then `writes` (read-write storage), numbered on
 * from 1.
 */
export interface Dispatch {
  readonly label: string
  readonly source: string
  readonly reads: readonly Operand[]
  readonly writes: readonly Operand[]
  /** 32-bit words of the uniform struct; floats as their bits (`floatBits`). */
  readonly uniforms: readonly number[]
  /** Workgroups along x, y, z. */
  readonly grid: readonly [number, number, number]
  /** Whether it multiplies what its operator multiplies: where no dispatch of a candidate says so, all do. */
  readonly multiplies?: boolean
}

/** A call of JavaScript between dispatches: what it reads is read back, and what it returns is written. */
export interface HostCall {
  readonly label: string
  readonly reads: readonly Operand[]
  readonly writes: readonly Operand[]
  /** Called once in each run, in the order of the program's calls; a later one may begin before it is done. */
  run(values: readonly Data[]): Promise<readonly Data[]>
}

/** One way to compute an operator: dispatches in order, and the temporary tensors they share; or a host call. */
export interface Candidate {
  readonly name: string
  /** Whether it multiplies on the adapter's matrix units. */
  readonly usesMatrixUnits?: boolean | undefined
  readonly temporaries?: readonly Spec[]
  readonly dispatches: readonly Dispatch[]
  /** Its time beside that of the other candidates which tell theirs, in any unit: what is hopeless is not measured. */
  readonly estimate?: number | undefined
  /**
   * What its speed depends on, where that is less than the whole call and the texts of its shaders: calls that are alike in
   * this are measured once.
   */
  readonly tuned?: { readonly call: string; readonly sources: readonly string[] } | undefined
  /** In place of dispatches. */
  readonly host?: HostCall
}

export interface KernelContext<A> {
  readonly inputs: readonly Spec[]
  readonly outputs: readonly Spec[]
  readonly attrs: A
  readonly adapter: AdapterTraits
}

const scratch = new DataView(new ArrayBuffer(4))

/** The bits of a float32 as an unsigned integer, for uniforms. */
export function floatBits(value: number): number {
  scratch.setFloat32(0, value)
  return scratch.getUint32(0)
}

/** `count` workgroups as a grid within WebGPU's 65,535 per dimension; the shader recovers x + y * grid.x. */
export function flatGrid(count: number): [number, number, number] {
  const limit = 65535
  if (count <= limit) return [Math.max(1, count), 1, 1]
  const y = Math.ceil(count / limit)
  return [Math.ceil(count / y), y, 1]
}

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b)
