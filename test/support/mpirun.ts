import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Machines } from './machines.js'

/** Whether processes can be started by `mpirun` here. */
export const hasMpi = spawnSync('mpirun', ['--version']).status === 0

/** As root, and with more processes than cores, Open MPI starts nothing unless it is told to. */
const environment = {
  ...process.env,
  OMPI_ALLOW_RUN_AS_ROOT: '1',
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
  OMPI_MCA_rmaps_base_oversubscribe: '1',
}

/** README's options for machines of which one may fail: mpirun notices it within 25 seconds, and not after eight minutes. */
const noticesLostMachines = Object.entries({ time: 10, intvl: 5, probes: 3 }).flatMap(([name, value]) => [
  '--mca',
  `oob_tcp_keepalive_${name}`,
  String(value),
])

/** The process of a rank, of those whose command line contains a text. */
export function pidOf(rank: number, text: string): number {
  const found = spawnSync('pgrep', ['-f', text], { encoding: 'utf8' })
  const isRank = (pid: string) => {
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
    return environment.includes(`OMPI_COMM_WORLD_RANK=${rank}`)
  }
  return Number(found.stdout.split('\n').filter(Boolean).find(isRank))
}

export interface MpiRun {
  readonly code: number | null
  readonly output: string
}

/**
 * Starts a process of Node for each list of arguments.
 * @param onOutput receives all that was printed so far, and the process of mpirun
 * @param machines where the ranks run, one on each; on this one when absent
 */
export function mpirun(
  ranks: readonly (readonly string[])[],
  onOutput: (output: string, pid: number) => void = () => {},
  machines?: Machines,
): Promise<MpiRun> {
  const where = (i: number) => (machines ? ['--host', `${machines.addresses[i]}`] : [])
  const parts = ranks.flatMap((own, i) => [...(i === 0 ? [] : [':']), '-n', '1', ...where(i), process.execPath, ...own])
  const [command, args] = machines
    ? machines.onFirst('mpirun', ['--mca', 'plm_rsh_agent', machines.remoteShell, ...noticesLostMachines, ...parts])
    : ['mpirun', parts]
  const child = spawn(command, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      onOutput(output, child.pid ?? 0)
    })
  }
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, output })))
}
