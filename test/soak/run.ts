// node build/test/soak/run.js [PATTERN] [--] [OPTIONS]
//
// Runs test/soak/*.soak.ts (those whose name contains PATTERN) from their compiled form, one after the other, each in a
// process of its own, with their output and OPTIONS. Exits with 1 if one of them fails.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const args = process.argv.slice(2)
// A first argument that begins with a dash is an option already: the pattern may be left out.
const pattern = args[0]?.startsWith('-') ? '' : (args.shift() ?? '')
// npm takes the first `--` for itself, and leaves a second one.
const options = args[0] === '--' ? args.slice(1) : args
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
