import type { AdapterTraits } from './adapter.js'
import type { Device } from './device.js'
import type { Node, Trace } from './ir.js'
import type { Candidate } from './kernel.js'
import { byteLength, type Spec } from './shape.js'

/** Selects one of a node's candidates. */
export type SelectKernel = (
  node: Node,
  candidates: readonly Candidate[],
) => Candidate | undefined | Promise<Candidate | undefined>

/** What kernels are made for. */
export type SelectableCall = Pick<Node, 'op' | 'name' | 'attrs' | 'outputs'> & { readonly inputs: readonly Spec[] }

/** How the kernels of a program are selected, once its trace is known: it may measure them first. */
export type KernelSelection = (trace: Trace) => SelectKernel | Promise<SelectKernel>

/**
 * The kernels that can compute a node, best first for this adapter; none for leaves. Those whose temporary tensors are too
 * large are left out where there are others.
 */
export async function candidatesOf(
  { op, inputs, outputs, attrs }: Omit<SelectableCall, 'name'>,
  adapter: AdapterTraits,
): Promise<readonly Candidate[]> {
  const all = (await op?.kernel({ inputs, outputs, attrs: attrs as never, adapter })) ?? []
  const fits = ({ temporaries = [] }: Candidate) => temporaries.every((spec) => byteLength(spec) <= adapter.maxBinding)
  return all.some(fits) ? all.filter(fits) : all
}

/** The first of each operator, which is the best by rule. */
const selectFirst: SelectKernel = (_, candidates) => candidates[0]

const defaults = new WeakMap<object, KernelSelection>()

/** How the programs of a device select their kernels by default; the first of each operator until it is set. */
export const kernelSelectionOf = (device: object): KernelSelection => defaults.get(device) ?? (() => selectFirst)

/** Sets how programs of a device that are compiled from now on select their kernels; undefined: by rule. */
export function setKernelSelection(device: Device, selection: KernelSelection | undefined): void {
  if (selection) defaults.set(device, selection)
  else defaults.delete(device)
}
