import {
  type Arrangement,
  type DivideAccess,
  type Division,
  divideOf,
  type Node,
  type Op,
  type OpCall,
  Tensor,
  type Trace,
  valueKey,
} from '../ir.js'
import { byteLength, type Spec, showShape, withSamples } from '../shape.js'

/**
 * Computes what is too large to be bound at once a few samples at a time, as each operator's `divide` says, over ranges of
 * its operands. A value that is too large is then kept in pieces, and put together only where it is delivered or an operator
 * that cannot be divided reads it. Other calls stay as they are.
 *
 * @param limit bytes that a kernel binds at most
 */
export async function divide(trace: Trace, limit: number): Promise<Trace> {
  const isLarge = (spec: Spec) => byteLength(spec) > limit
  if (!trace.nodes.some(({ outputs }) => outputs.some(isLarge))) return trace
  return new Divider(trace, limit, await divisionsOf(trace)).result()
}

/** How the operators of a trace are divided. */
export type Divisions = ReadonlyMap<Op | undefined, DivideAccess<never>>

export async function divisionsOf({ nodes }: Pick<Trace, 'nodes'>): Promise<Divisions> {
  const found = new Map<Op | undefined, DivideAccess<never>>()
  for (const op of new Set(nodes.map((node) => node.op))) {
    const access = await divideOf(op)
    if (access) found.set(op, access)
  }
  return found
}

/** Samples of a value, from `start` on along its first axis. */
interface Piece {
  readonly start: number
  readonly tensor: Tensor
}

interface SampleRange {
  readonly start: number
  readonly size: number
}

/**
 * Ranges of so many samples at most, in halves of halves: then those of different operands lie within one another, and none
 * is put together from pieces of several.
 */
function halved({ start, size }: SampleRange, most: number): SampleRange[] {
  if (size <= most) return [{ start, size }]
  const half = Math.ceil(size / 2)
  return [
    { start, size: half },
    { start: start + half, size: size - half },
  ].flatMap((part) => halved(part, most))
}

const samplesOf = ({ shape: [samples = 1] }: Pick<Spec, 'shape'>): number => samples

/** A tensor as its node declares it, under whatever shape it is seen. */
const declared = ({ node, index, shape, dtype }: Tensor): Spec => node.outputs[index] ?? { shape, dtype }

const seenAs = ({ node, index, dtype }: Tensor, { shape, detached }: Pick<Tensor, 'shape' | 'detached'>): Tensor =>
  new Tensor(node, index, shape, dtype, detached)

class Divider {
  private readonly nodes: Node[] = []
  /** The pieces of each value of the old trace, in their order; one where it is whole. */
  private readonly places = new Map<string, readonly Piece[]>()
  /** How values that are in pieces are put together. */
  private readonly arrangements = new Map<string, Arrangement>()
  /** Ranges and whole values that were asked for. */
  private readonly made = new Map<string, Tensor>()
  private id: number

  constructor(
    private readonly trace: Trace,
    private readonly limit: number,
    private readonly divisions: Divisions,
  ) {
    this.id = Math.max(-1, ...trace.nodes.map((node) => node.id))
  }

  result(): Trace {
    for (const node of this.trace.nodes) {
      const involved = [...node.inputs.map(declared), ...node.outputs]
      const isDone = involved.some((spec) => this.isLarge(spec)) && (this.arranges(node) || this.divides(node))
      if (!isDone) this.keep(node)
    }
    const whole = <K>(map: ReadonlyMap<K, Tensor>) =>
      new Map([...map].map(([key, value]): [K, Tensor] => [key, this.whole(value)]))
    const { inputs, outputs, assigned } = this.trace
    const delivered = { outputs: whole(outputs), assigned: whole(assigned) }
    return { nodes: this.nodes, inputs, ...delivered }
  }

  private keep(node: Node): void {
    const inputs = node.inputs.map((value) => this.whole(value))
    const unchanged = inputs.every((value, i) => value === node.inputs[i])
    const kept = unchanged ? node : { ...node, inputs }
    this.nodes.push(kept)
    for (const [index, { shape, dtype }] of node.outputs.entries())
      this.places.set(`${node.id}.${index}`, [{ start: 0, tensor: new Tensor(kept, index, shape, dtype) }])
  }

  private isLarge(spec: Spec): boolean {
    return byteLength(spec) > this.limit
  }

  /** How many samples of a tensor can be bound at once. */
  private mostOf(spec: Spec, samples = samplesOf(spec)): number {
    return this.isLarge(spec) ? Math.floor(this.limit / (byteLength(spec) / samples)) : samples
  }

  /** Puts together the pieces of a node's inputs, where its result is ranges of these. */
  private arranges(node: Node): boolean {
    const { op, inputs, outputs, attrs } = node
    const [output] = outputs
    const divide = this.divisions.get(op)
    if (!op || !divide || !output) return false
    const call = { inputs, outputs, attrs: attrs as never }
    const range = op.partOfInput?.(call)
    const parts = range ? [{ ...range, start: -range.start }] : (op.concat?.parts(call) ?? [])
    const pieces = inputs.map((value) => this.piecesOf(value))
    const isArranged =
      parts.length === inputs.length &&
      parts.every(({ axis }) => axis === 0) &&
      inputs.every(({ dtype }) => dtype === output.dtype) &&
      !pieces.includes(undefined)
    if (!isArranged) return false
    const sources = pieces.flatMap((list = [], i) =>
      list.map(({ start, tensor }) => ({ start: start + (parts[i]?.start ?? 0), tensor })),
    )
    this.assemble(node, 0, sources, divide.arrangement)
    return true
  }

  /** Calls a node's operator for a few samples at a time. */
  private divides(node: Node): boolean {
    const { op, inputs, outputs } = node
    const divide = this.divisions.get(op)
    if (!op || !divide) return false
    const { arrangement } = divide
    const division = divide.division({ inputs, outputs, attrs: node.attrs as never })
    const most = division ? this.mostSamples(node, division) : 0
    if (!division || most < 1) return false

    const results: Piece[][] = division.outputs.map(() => [])
    for (const range of halved({ start: 0, size: division.samples }, most)) {
      const call = { op, name: node.name, ...division.piece(range.size) }
      const replaced = call.op.inplace?.(call.attrs as never)
      const updates = division.outputs.map((kind, k) => (kind === 'updated' ? replaced?.get(k) : undefined))
      const operands = inputs.flatMap((value, i): Tensor[] => {
        const updated = results[updates.indexOf(i)]?.[0]?.tensor
        if (updated) return [updated]
        const use = division.inputs[i]
        if (use === 'last') return []
        return [use === 'divided' ? this.samples(node, value, range, arrangement) : this.whole(value)]
      })
      for (const [k, tensor] of this.append(node, call, operands).entries())
        results[k] = this.combined(node, division.outputs[k], results[k] ?? [], tensor, arrangement)
    }
    if (division.last) this.finish(node, division.last, division, results, arrangement)
    else for (const k of outputs.keys()) this.assemble(node, k, results[k] ?? [], arrangement)
    return true
  }

  /** How many samples a call can take; 0 where it cannot be divided. */
  private mostSamples({ inputs, outputs }: Node, division: Division): number {
    const { samples } = division
    const ofInputs = inputs.map((value, i) => {
      if (division.inputs[i] !== 'divided') return this.isLarge(declared(value)) ? 0 : samples
      return samplesOf(value) === samples && this.hasRanges(value) ? this.mostOf(declared(value), samples) : 0
    })
    const ofOutputs = outputs.map((output, k) => {
      if (division.last || division.outputs[k] !== 'joined') return this.isLarge(output) ? 0 : samples
      return this.mostOf(output, samples)
    })
    return Math.min(samples, ...ofInputs, ...ofOutputs)
  }

  /** What there is of an output, after one more call. */
  private combined(
    node: Node,
    kind: Division['outputs'][number] | undefined,
    before: readonly Piece[],
    tensor: Tensor,
    arrangement: Arrangement,
  ): Piece[] {
    const last = before.at(-1)
    if (!last) return [{ start: 0, tensor }]
    if (kind === 'joined') return [...before, { start: last.start + samplesOf(last.tensor), tensor }]
    const isSum = kind === 'summed'
    return [{ start: 0, tensor: isSum ? this.appendOne(node, arrangement.add(tensor), [last.tensor, tensor]) : tensor }]
  }

  /** The call that makes a node's results of those of its pieces. */
  private finish(
    node: Node,
    call: OpCall,
    { inputs }: Division,
    results: readonly (readonly Piece[])[],
    arrangement: Arrangement,
  ): void {
    const together = results.flatMap((pieces) => {
      const last = pieces.at(-1)
      return last ? [this.part(node, pieces, { start: 0, size: last.start + samplesOf(last.tensor) }, arrangement)] : []
    })
    const left = node.inputs.filter((_, i) => inputs[i] === 'last').map((value) => this.whole(value))
    for (const [k, tensor] of this.append(node, call, [...together, ...left]).entries())
      this.places.set(`${node.id}.${k}`, [{ start: 0, tensor }])
  }

  /** Gives an output of a node its place, in as few pieces as can be bound. */
  private assemble(node: Node, index: number, sources: readonly Piece[], arrangement: Arrangement): void {
    const output = node.outputs[index]
    if (!output) return
    const key = `${node.id}.${index}`
    const ranges = halved({ start: 0, size: samplesOf(output) }, Math.max(1, this.mostOf(output)))
    const pieces = ranges.map((range) => ({
      start: range.start,
      tensor: this.part(node, sources, range, arrangement, output),
    }))
    this.places.set(key, pieces)
    this.arrangements.set(key, arrangement)
  }

  /**
   * A range of what pieces make up, and zeros where there is none.
   * @param spec of all of it; by default they have no gaps
   */
  private part(
    like: Node,
    pieces: readonly Piece[],
    { start, size }: SampleRange,
    arrangement: Arrangement,
    spec?: Spec,
  ): Tensor {
    const found = pieces.flatMap((piece): Piece[] => {
      const first = Math.max(start, piece.start)
      const end = Math.min(start + size, piece.start + samplesOf(piece.tensor))
      if (end <= first) return []
      const range = { start: first - piece.start, size: end - first }
      return [{ start: first - start, tensor: this.cut(like, piece.tensor, range, arrangement) }]
    })
    const [first] = found
    if (first && samplesOf(first.tensor) === size) return first.tensor
    const whole = spec ?? first?.tensor
    if (!whole) throw new Error(`${like.name}: nothing tells the shape of its result`)
    const starts = found.map((piece) => piece.start)
    const call = arrangement.join(starts, withSamples(whole, size))
    return this.appendOne(
      like,
      call,
      found.map(({ tensor }) => tensor),
    )
  }

  private cut(like: Node, tensor: Tensor, { start, size }: SampleRange, { range }: Arrangement): Tensor {
    if (samplesOf(tensor) === size) return tensor
    // The backward pass makes its own: where ranges are copies, theirs need not be kept for it.
    const pass = like.backward ? 'backward' : 'forward'
    const key = `${pass} ${valueKey(tensor)} from ${start} of ${size} ${showShape(tensor.shape)}`
    const known = this.made.get(key)
    const made = known ?? this.appendOne(like, range(tensor, start, size), [tensor])
    this.made.set(key, made)
    return new Tensor(made.node, made.index, made.shape, made.dtype, tensor.detached)
  }

  /** Samples of a value of the old trace, under the shape that it is seen under. */
  private samples(like: Node, value: Tensor, { start, size }: SampleRange, arrangement: Arrangement): Tensor {
    const pieces = this.piecesOf(value)
    if (pieces) return this.part(like, pieces, { start, size }, arrangement, value)
    const spec = declared(value)
    const each = samplesOf(spec) / samplesOf(value)
    const range = { start: each * start, size: each * size }
    const part = this.part(like, this.places.get(valueKey(value)) ?? [], range, arrangement, spec)
    return seenAs(part, { shape: [size, ...value.shape.slice(1)], detached: value.detached })
  }

  /** Whether the samples of a value, under the shape that it is seen under, are ranges of it. */
  private hasRanges(value: Tensor): boolean {
    return this.piecesOf(value) !== undefined || Number.isInteger(samplesOf(declared(value)) / samplesOf(value))
  }

  /** The pieces of a value under the shape that it is seen under; undefined where they are no samples of that. */
  private piecesOf(value: Tensor): Piece[] | undefined {
    const pieces = this.places.get(valueKey(value)) ?? []
    const each = pieces.length > 1 ? samplesOf(value) / samplesOf(declared(value)) : 1
    if (!Number.isInteger(each)) return undefined
    return pieces.map(({ start, tensor }) => {
      const size = pieces.length > 1 ? each * samplesOf(tensor) : samplesOf(value)
      return {
        start: each * start,
        tensor: seenAs(tensor, { detached: value.detached, shape: [size, ...value.shape.slice(1)] }),
      }
    })
  }

  /** All of a value of the old trace. */
  private whole(value: Tensor): Tensor {
    const key = valueKey(value)
    const pieces = this.places.get(key) ?? []
    const [first] = pieces
    if (!first) throw new Error(`${value.node.name} is read before it is computed`)
    const arrangement = this.arrangements.get(key)
    const spec = declared(value)
    const all = { start: 0, size: samplesOf(spec) }
    const made =
      this.made.get(key) ??
      (pieces.length > 1 && arrangement ? this.part(value.node, pieces, all, arrangement, spec) : first.tensor)
    this.made.set(key, made)
    return made.node === value.node ? value : seenAs(made, value)
  }

  private append({ scope, backward }: Node, call: OpCall, inputs: readonly Tensor[]): Tensor[] {
    const node: Node = { ...call, id: ++this.id, inputs, scope, backward }
    this.nodes.push(node)
    return node.outputs.map(({ shape, dtype }, index) => new Tensor(node, index, shape, dtype))
  }

  private appendOne(like: Node, call: OpCall, inputs: readonly Tensor[]): Tensor {
    const [result] = this.append(like, call, inputs)
    if (!result) throw new Error(`${call.name} has no output`)
    return result
  }
}
