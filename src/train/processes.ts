import { readFileSync } from 'node:fs'

/**
 * What Linux says of a process behind its number and name: the fields of proc_pid_stat(5) from the third one on.
 * @throws Error where the system has no such list, or the process is gone
 */
export function statOf(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field is a name in parentheses, which may hold anything.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** Whether no process of this machine, or of this namespace, has a number. */
export function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}
