import { type PeerMeasurement, type PeerResult, ratioToFastest, summarizePeers } from './peers.js'
import { digits } from './print.js'

const times = (ratio: number): string => `${digits(ratio)}x`

const columns = (name: string, shape: string, ms: string, others: readonly string[]): string =>
  [name.padEnd(28), shape.padEnd(34), ms.padStart(9), ...others.map((text) => text.padStart(22))].join(' ')

export function printPeerHead(names: readonly string[]): void {
  console.log('milliseconds, and how many times faster we are\n')
  console.log(columns('operator', 'shape', 'ours', names))
}

const cell = ({ timing, ratio, failure }: PeerResult): string =>
  timing && ratio !== undefined ? `${digits(timing.milliseconds)} ${times(ratio).padStart(7)}` : (failure ?? 'none')

export function printPeerRow(row: PeerMeasurement): void {
  console.log(
    columns(`${row.op}, ${row.pass}`, row.shape, digits(row.milliseconds), Object.values(row.peers).map(cell)),
  )
}

export function printPeerSummary(rows: readonly PeerMeasurement[]): void {
  console.log('\ntimes faster than the fastest peer of each shape: median, worst')
  for (const { name, median, worst } of summarizePeers(rows)) {
    console.log(`${name.padEnd(32)} ${times(median).padStart(8)} ${times(worst).padStart(8)}`)
  }
  const slower = rows.filter((row) => (ratioToFastest(row) ?? 1) < 1)
  for (const { op, pass, shape } of slower) console.log(`slower than a peer: ${op}, ${pass}, ${shape}`)
}
