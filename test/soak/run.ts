// node build/test/soak/run.js [PATTERN] [-- OPTIONS]
//
// Runs test/soak/*.soak.ts (those whose name contains PATTERN) from their compiled form, one after the other, each in a
// process of its own, with their output and OPTIONS. Exits with 1 if one of them fails.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const args = process.argv.slice(2)
const split = args.indexOf('--')
const [pattern = ''] = split < 0 ? args : args.slice(0, split)
const options = split < 0 ? [] : args.slice(split + 1)
const names = readdirSync(join(root, 'test/soak'))
  .filter((file) => file.endsWith('.soak.ts') && file.slice(0, -'.soak.ts'.length).includes(pattern))
  .sort()
if (names.length === 0) {
  console.error(`no test/soak/*.soak.ts has '${pattern}' in its name`)
  process.exitCode = 1
}
for (const name of names) {
  console.log(name)
  const script = join(root, 'build/test/soak', name.replace(/\.ts$/, '.js'))
  const { status, signal } = spawnSync(process.execPath, [script, ...options], { cwd: root, stdio: 'inherit' })
  if (status === 0) continue
  console.log(`FAIL  ${name} ended with ${signal ?? `exit code ${status}`}`)
  process.exitCode = 1
}
