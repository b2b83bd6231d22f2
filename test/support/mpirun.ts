import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** Whether processes can be started by `mpirun` here. */
export const hasMpi = spawnSync('mpirun', ['--version']).status === 0

/** As root, and with more processes than cores, Open MPI starts nothing unless it is told to. */
const environment = {
  ...process.env,
  OMPI_ALLOW_RUN_AS_ROOT: '1',
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
  OMPI_MCA_rmaps_base_oversubscribe: '1',
}

/** The process of a rank. */
export function pidOf(rank: number, mpirunPid: number): number {
  const children = spawnSync('pgrep', ['-P', String(mpirunPid)], { encoding: 'utf8' })
  const isRank = (pid: string) => {
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
    return environment.includes(`OMPI_COMM_WORLD_RANK=${rank}`)
  }
  return Number(children.stdout.split('\n').filter(Boolean).find(isRank))
}

export interface MpiRun {
  readonly code: number | null
  readonly output: string
}

/**
 * Starts a process of Node for each list of arguments.
 * @param onOutput receives all that was printed so far, and the process of mpirun
 */
export function mpirun(
  ranks: readonly (readonly string[])[],
  onOutput: (output: string, pid: number) => void = () => {},
): Promise<MpiRun> {
  const args = ranks.flatMap((own, i) => [...(i === 0 ? [] : [':']), '-n', '1', process.execPath, ...own])
  const child = spawn('mpirun', args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      onOutput(output, child.pid ?? 0)
    })
  }
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, output })))
}
