import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Two machines as far as a name, an address and a cable between them make one: network namespaces of Linux. */
export interface Machines {
  readonly addresses: readonly [string, string]
  /** What starts a command on another machine, as a remote shell does: its arguments are an address and a command line. */
  readonly remoteShell: string
  /** A command on the first machine, as one to start here. */
  onFirst(command: string, args: readonly string[]): readonly [string, readonly string[]]
  /** Pulls the cable out. */
  disconnect(): void
  connect(): void
  remove(): void
}

const names = ['atrous-one', 'atrous-two'] as const
const addresses = ['10.203.0.1', '10.203.0.2'] as const
const cable = ['atrous-a', 'atrous-b'] as const

/** The machines, or undefined where this system does not let us make them. */
export function twoMachines(): Machines | undefined {
  if (spawnSync('unshare', ['--net', '--uts', '--ipc', 'true']).status !== 0) return undefined
  if (spawnSync('ip', ['netns', 'add', names[0]]).status !== 0) return undefined
  const [one, two] = names
  ip('netns', 'add', two)
  ip('link', 'add', cable[0], 'netns', one, 'type', 'veth', 'peer', 'name', cable[1], 'netns', two)
  for (const [i, name] of names.entries()) {
    ip('-n', name, 'address', 'add', `${addresses[i]}/24`, 'dev', `${cable[i]}`)
    for (const device of ['lo', `${cable[i]}`]) ip('-n', name, 'link', 'set', device, 'up')
  }
  const folder = mkdtempSync(join(tmpdir(), 'atrous-machines-'))
  const remoteShell = join(folder, 'remote-shell')
  const enter = 'exec ip netns exec "$name" unshare --uts --ipc --fork bash -c'
  const script = `#!/bin/bash
case $1 in ${addresses[0]}) name=${one} ;; ${addresses[1]}) name=${two} ;; *) exit 255 ;; esac
shift
${enter} "hostname $name; $*"
`
  writeFileSync(remoteShell, script, { mode: 0o755 })
  const onFirst = `name=${one}; ${enter} 'hostname "$0"; exec "$@"' "$name" "$@"`
  return {
    addresses,
    remoteShell,
    onFirst: (command, args) => ['bash', ['-c', onFirst, 'bash', command, ...args]],
    disconnect: () => ip('-n', one, 'link', 'set', cable[0], 'down'),
    connect: () => ip('-n', one, 'link', 'set', cable[0], 'up'),
    remove: () => {
      for (const name of names) ip('netns', 'delete', name)
      rmSync(folder, { recursive: true })
    },
  }
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`)
}
