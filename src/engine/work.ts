import type { KernelInfo } from './profile.js'

/** So many products take the time of a byte that is moved, about. */
export const productsPerByte = 8

/** What a run of a program does, by which the times of programs can be compared before they run. */
export interface Work {
  /** Read and written by dispatches and copies. */
  readonly bytes: number
  /** Of the operators that tell them. */
  readonly multiplyAdds: number
}

/** The work of dispatches and copies. */
export function workOf(kernels: readonly KernelInfo[]): Work {
  const sum = (numbers: readonly number[]) => numbers.reduce((total, value) => total + value, 0)
  return {
    bytes: sum(kernels.map(({ bytes }) => bytes)),
    multiplyAdds: sum(kernels.map(({ multiplyAdds }) => multiplyAdds)),
  }
}
