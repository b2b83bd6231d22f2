// What a package holds is built anew, so that nothing of an earlier state is packed.
import { existsSync, rmSync } from 'node:fs'

if (!existsSync('node_modules/typescript')) {
  console.error('pack: the compiler is missing: run npm ci first')
  process.exit(1)
}
rmSync('dist', { recursive: true, force: true })
