import type { Device } from '#dist/engine/device.js'
import { writeAtomically } from '#dist/train/io/files.js'
import type { Setting } from '../cases/case.js'
import type { stepModels } from '../cases/steps.js'

export interface Options {
  readonly crop?: number
  readonly batch?: number
  readonly only?: string
  readonly json?: string
  readonly compare?: string
  readonly photographs?: string
  readonly gpu?: string
  readonly tune?: 'known' | 'all'
  readonly calls?: number
  readonly toggles?: string
  readonly peers?: boolean
  readonly profile?: string
  readonly steps: number
  readonly profileSteps: number
  readonly amp: boolean
  readonly ranks?: number
  readonly model: keyof typeof stepModels
}

/** Sizes at which the operators run. */
export function settingOf(device: Device, { crop, batch }: Options): Setting {
  const { software } = device.adapter
  return { crop: crop ?? (software ? 129 : 321), batch: batch ?? (software ? 4 : 8) }
}

/** Whether `--only` takes what has this name. */
export const wantedBy = (only: string, name: string): boolean => name.toLowerCase().includes(only.toLowerCase())

/** Calls `body` for each item; a failure is printed and counted, and the rest goes on. */
export async function eachOf<T>(
  items: readonly T[],
  what: (item: T) => string,
  body: (item: T) => Promise<void>,
): Promise<number> {
  let failed = 0
  for (const item of items) {
    try {
      await body(item)
    } catch (error) {
      failed++
      console.log(`${what(item)}: FAILED: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return failed
}

export function writeReport(path: string, report: object): void {
  writeAtomically(path, [Buffer.from(`${JSON.stringify(report, null, 2)}\n`)])
  console.log(`\nwrote ${path}`)
}
