import { UserError } from '../error.js'

/** How a process was started beside others. */
export interface Launch {
  readonly kind: 'open-mpi' | 'mpich'
  readonly size: number
}

type Environment = Readonly<Record<string, string | undefined>>

/** What `mpirun` tells the processes that it starts, in their environment; undefined for one that was started by itself. */
export function launchOf(environment: Environment = process.env): Launch | undefined {
  const size = (name: string): number => Number(environment[name])
  if (environment.OMPI_COMM_WORLD_SIZE !== undefined) return { kind: 'open-mpi', size: size('OMPI_COMM_WORLD_SIZE') }
  if (environment.PMI_SIZE !== undefined) return { kind: 'mpich', size: size('PMI_SIZE') }
  if (environment.PMIX_RANK !== undefined) {
    throw new UserError('this process was started by a launcher that does not say of which MPI: start it with mpirun')
  }
  return undefined
}
