import type { Device } from '#dist/engine/device.js'
import { UserError } from '#dist/train/error.js'
import { eachOf, type Options, settingOf, wantedBy, writeReport } from './options.js'
import { measureResidualTask, measureTask, openPeers, type PeerMeasurement, type PeerTask, peerTasks } from './peers.js'
import { printPeerHead, printPeerRow, printPeerSummary } from './print-peers.js'

const taskName = ({ row, pass }: PeerTask): string => `${row.op}, ${pass} ${row.name}`

/** Times the operators and the residual step beside the other libraries'. */
export async function runBeside(device: Device, options: Options): Promise<void> {
  const { crop, batch } = settingOf(device, options)
  const { only = '', json } = options
  const tasks = peerTasks({ crop, batch }).filter((task) => wantedBy(only, taskName(task)))
  const residual = wantedBy(only, 'residual step') ? ['residual step'] : []
  if (tasks.length + residual.length === 0) {
    throw new UserError(`--only ${only}: nothing that is compared has that in its name`)
  }
  console.log(`${device.adapter.device} (${device.adapter.driver}), crop ${crop}, batch ${batch}`)
  const peers = await openPeers(device, options.gpu)
  printPeerHead(peers.map(({ name }) => name))
  const rows: PeerMeasurement[] = []
  const keep = (row: PeerMeasurement) => {
    rows.push(row)
    printPeerRow(row)
  }
  let failed = await eachOf(tasks, taskName, async (task) => keep(await measureTask(device, peers, task)))
  failed += await eachOf(residual, String, async () => keep(await measureResidualTask(device, peers)))
  printPeerSummary(rows)
  if (json !== undefined) writeReport(json, { adapter: device.adapter, crop, batch, peers: rows })
  if (failed > 0) throw new UserError(`${failed} measurements failed`)
}
