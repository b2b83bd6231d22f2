import { createRequire } from 'node:module'
import type * as Koffi from 'koffi'
import { UserError } from '../error.js'
import type { Launch } from './launcher.js'

/** A call that is under way. */
export type MpiRequest = BigUint64Array

/** Names of the library: of Open MPI, and of all that share MPICH's binary interface. */
const libraries: Readonly<Record<Launch['kind'], readonly string[]>> = {
  'open-mpi': ['libmpi.so.40', 'libmpi.40.dylib', 'libmpi.so'],
  mpich: ['libmpi.so.12', 'libmpich.so.12', 'libmpi.12.dylib'],
}
const packages = { 'open-mpi': 'openmpi-bin', mpich: 'mpich' } as const

/** Handles of MPICH's binary interface, which are numbers; those of Open MPI are addresses of its variables. */
const mpichHandles = { world: 0x44000000, byte: 0x4c00010d, float: 0x4c00040a } as const
const openMpiHandles = { world: 'ompi_mpi_comm_world', byte: 'ompi_mpi_byte', float: 'ompi_mpi_float' } as const

/** Of `MPI_Init_thread`: only the thread that began calls MPI. */
const funneled = 1
/** The tag of messages between two ranks. */
const tag = 1
const anySource: Readonly<Record<Launch['kind'], number>> = { 'open-mpi': -1, mpich: -2 }

/** What calls send and receive: floats, or bytes as they are. */
export type Values = Float32Array | Uint8Array

/** MPI as far as it is used here: calls that do not wait, from one thread. */
export class Mpi {
  readonly rank: number
  readonly size: number
  private readonly handles: Readonly<Record<keyof typeof mpichHandles, unknown>>
  /** Of the same ranks, for calls whose order among each other is all that counts. */
  private readonly second: unknown
  private readonly functions = new Map<string, Koffi.KoffiFunc<(...args: unknown[]) => number>>()
  /** Takes what calls report beside their result, which nothing here reads. */
  private readonly status = new BigUint64Array(16)
  private readonly flag = new Int32Array(1)

  private constructor(
    private readonly library: Koffi.LibraryHandle,
    private readonly kind: Launch['kind'],
  ) {
    const isOpen = kind === 'open-mpi'
    this.handles = isOpen
      ? {
          world: library.symbol(openMpiHandles.world, 'char'),
          byte: library.symbol(openMpiHandles.byte, 'char'),
          float: library.symbol(openMpiHandles.float, 'char'),
        }
      : mpichHandles
    const provided = new Int32Array(1)
    this.call('MPI_Init_thread', 'void*, void*, int, void*', null, null, funneled, provided)
    this.rank = this.number('MPI_Comm_rank')
    this.size = this.number('MPI_Comm_size')
    const second = new BigUint64Array(1)
    this.call('MPI_Comm_dup', this.typesOf('C B'), this.handles.world, second)
    this.second = isOpen ? second[0] : new Int32Array(second.buffer)[0]
  }

  /** Begins the communication. Throws a UserError where the library is missing, with the package that has it. */
  static open({ kind }: Launch): Mpi {
    const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi
    const reasons: string[] = []
    for (const name of libraries[kind]) {
      let library: Koffi.LibraryHandle
      try {
        library = koffi.load(name)
      } catch (error) {
        reasons.push(error instanceof Error ? error.message : String(error))
        continue
      }
      return new Mpi(library, kind)
    }
    const installed = `install it on every machine, as with apt-get install ${packages[kind]}`
    throw new UserError(`the library of ${kind} cannot be loaded (${reasons[0]}): ${installed}`)
  }

  /**
   * `send` of every rank, one after the other, into `into`.
   * @param apart the order of these calls is another than that of all others
   */
  allGather(send: Values, into: Values, apart = false): MpiRequest {
    const [type, each] = [this.typeOf(send), send.length]
    return this.begin('MPI_Iallgather', 'B int T B int T C R', [send, each, type, into, each, type], apart)
  }

  /** Part r of `send` to rank r, of equal parts; those for this one, by rank, into `into`. In the order of those apart. */
  exchangeParts(send: Values, into: Values): MpiRequest {
    const [type, each] = [this.typeOf(send), send.length / this.size]
    return this.begin('MPI_Ialltoall', 'B int T B int T C R', [send, each, type, into, each, type], true)
  }

  /** The values of rank 0 to all ranks, in place. */
  broadcast(values: Values): MpiRequest {
    return this.begin('MPI_Ibcast', 'B int T int C R', [values, values.length, this.typeOf(values), 0])
  }

  /** Done when every rank has called it. */
  barrier(): MpiRequest {
    return this.begin('MPI_Ibarrier', 'C R', [])
  }

  /** A message to one rank. */
  send(values: Values, rank: number): MpiRequest {
    return this.begin('MPI_Isend', 'B int T int int C R', [values, values.length, this.typeOf(values), rank, tag])
  }

  /** The next message of any rank, of at most so many elements. */
  receive(into: Values): MpiRequest {
    const source = anySource[this.kind]
    return this.begin('MPI_Irecv', 'B int T int int C R', [into, into.length, this.typeOf(into), source, tag])
  }

  /** Whether a call is done; asking is also what moves it on. */
  isDone(request: MpiRequest): boolean {
    this.call('MPI_Test', 'void*, void*, void*', request, this.flag, this.status)
    return this.flag[0] !== 0
  }

  /** Gives up a message that was to be received. */
  cancel(request: MpiRequest): void {
    this.call('MPI_Cancel', 'void*', request)
    this.call('MPI_Request_free', 'void*', request)
  }

  /** Ends the communication, when no call is under way. */
  finalize(): void {
    this.call('MPI_Finalize', '')
  }

  /** Ends the processes of all ranks. */
  abort(exitCode: number): void {
    this.call('MPI_Abort', this.typesOf('C int'), this.handles.world, exitCode)
  }

  private typeOf(values: Values): unknown {
    return values instanceof Float32Array ? this.handles.float : this.handles.byte
  }

  /** C types of parameters: `B`uffer, data `T`ype, `C`ommunicator, `R`equest. */
  private typesOf(parameters: string): string {
    const handle = this.kind === 'open-mpi' ? 'void*' : 'int'
    const types: Readonly<Record<string, string>> = { B: 'void*', R: 'void*', T: handle, C: handle, int: 'int' }
    return parameters
      .split(' ')
      .map((parameter) => types[parameter])
      .join(', ')
  }

  /** A call whose last parameters are the communicator and the request. */
  private begin(name: string, parameters: string, args: readonly unknown[], apart = false): MpiRequest {
    const request: MpiRequest = new BigUint64Array(1)
    this.call(name, this.typesOf(parameters), ...args, apart ? this.second : this.handles.world, request)
    return request
  }

  private number(name: string): number {
    const value = new Int32Array(1)
    this.call(name, this.typesOf('C B'), this.handles.world, value)
    return value[0] ?? 0
  }

  private call(name: string, types: string, ...args: unknown[]): void {
    let called = this.functions.get(name)
    if (!called) {
      called = this.library.func(`int ${name}(${types})`)
      this.functions.set(name, called)
    }
    const code = called(...args)
    if (code !== 0) throw new Error(`${name} failed with code ${code}`)
  }
}
