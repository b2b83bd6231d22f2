import type { Node } from './ir.js'
import type { KernelInfo } from './profile.js'

/** What a run of a program does, by which the times of programs can be compared before they run. */
export interface Work {
  /** Read and written by dispatches and copies. */
  readonly bytes: number
  /** Of the operators that tell them. */
  readonly multiplyAdds: number
}

/** The work of nodes whose dispatches and copies are these. */
export function workOf(nodes: readonly Node[], kernels: readonly KernelInfo[]): Work {
  const products = nodes.map(({ op, inputs, outputs, attrs }) => {
    return op?.multiplyAdds?.({ inputs, outputs, attrs: attrs as never }) ?? 0
  })
  const sum = (numbers: readonly number[]) => numbers.reduce((total, value) => total + value, 0)
  return { bytes: sum(kernels.map(({ bytes }) => bytes)), multiplyAdds: sum(products) }
}
