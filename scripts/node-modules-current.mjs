// Exits with 0 if node_modules/ is what package-lock.json asks for, on this platform, and with 1 if `npm ci` is due.
// npm leaves a record of what it installed in node_modules/.package-lock.json.
import { existsSync, readFileSync } from 'node:fs'

const fits = (list, value) => !list || list.includes(value)

function isCurrent() {
  const wanted = JSON.parse(readFileSync('package-lock.json', 'utf8')).packages
  const present = JSON.parse(readFileSync('node_modules/.package-lock.json', 'utf8')).packages
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue
    const found = present[path]
    // Packages of other platforms are optional.
    if (!found && entry.optional) continue
    if (!found || found.version !== entry.version || found.integrity !== entry.integrity) return false
  }
  return Object.entries(present).every(
    ([path, entry]) =>
      path in wanted && fits(entry.os, process.platform) && fits(entry.cpu, process.arch) && existsSync(path),
  )
}

try {
  process.exit(isCurrent() ? 0 : 1)
} catch {
  process.exit(1)
}
