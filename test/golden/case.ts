import type { Tensor } from '#dist/engine/ir.js'
import type { Store } from '#dist/engine/store.js'
import { UserError } from '#dist/train/error.js'

/** A case of ops.json. */
export interface GoldenCase {
  readonly id: string
  readonly op: string
  readonly params: Readonly<Record<string, unknown>>
  readonly in: readonly string[]
  readonly out: readonly string[]
  readonly gin: readonly string[]
  readonly gout?: readonly string[]
  readonly atol: Readonly<Record<string, number>>
  /** Beside the parameters, where the file has it so. */
  readonly lr_used_per_step?: readonly (readonly number[])[]
}

export type Tensors = (name: string) => Tensor

/** How each operator of a file is computed; the names of inputs and outputs are the file's. `store` is empty. */
export type Rules = Readonly<Record<string, (t: Tensors, p: Params, store: Store) => Record<string, Tensor>>>

/** Parameters of a case, whose absence is an error that names case and parameter. */
export class Params {
  constructor(private readonly row: GoldenCase) {}

  /** Learning rates by step and group. */
  learningRates(): readonly (readonly number[])[] {
    return this.row.lr_used_per_step ?? this.lists<number>('lr_used_per_step')
  }

  /** Names of inputs. */
  inputs(): readonly string[] {
    return this.row.in
  }

  number(name: string, otherwise?: number): number {
    const value = this.row.params[name] ?? otherwise
    if (typeof value !== 'number') throw this.wrong(name, 'a number')
    return value
  }

  text(name: string): string {
    const value = this.row.params[name]
    if (typeof value !== 'string') throw this.wrong(name, 'a text')
    return value
  }

  flag(name: string): boolean {
    return this.row.params[name] === true
  }

  numbers(name: string): number[] {
    const value = this.row.params[name]
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'number')) throw this.wrong(name, 'numbers')
    return value
  }

  has(name: string): boolean {
    return this.row.params[name] !== undefined && this.row.params[name] !== null
  }

  record(name: string): Readonly<Record<string, unknown>> {
    const value = this.row.params[name]
    if (typeof value !== 'object' || value === null) throw this.wrong(name, 'an object')
    return value as Record<string, unknown>
  }

  texts(name: string): string[] {
    const value = this.row.params[name]
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) throw this.wrong(name, 'names')
    return value
  }

  lists<T>(name: string): T[][] {
    const value = this.row.params[name]
    if (!Array.isArray(value) || !value.every(Array.isArray)) throw this.wrong(name, 'lists')
    return value
  }

  wrong(name: string, what: string): UserError {
    return new UserError(`ops.json: case ${this.row.id} needs ${what} as params.${name}`)
  }
}
