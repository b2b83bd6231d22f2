// Runs the cases of the folders beside this file; README.md there describes them.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import sharp from 'sharp'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { z } from 'zod'
import { rgbPng } from '#dist/train/drawing/masks.js'
import { Random } from '#dist/train/random.js'
import { tinyData } from '../support/tiny-run.js'

const texts = z.array(z.string()).default([])
const caseSchema = z.strictObject({
  about: z.string(),
  needs: z.array(z.enum(['scenes', 'checkpoint'])).default([]),
  files: z.record(z.string(), z.string()).default({}),
  images: z.record(z.string(), z.tuple([z.int(), z.int(), z.union([z.literal('noise'), z.int()])])).default({}),
  steps: z
    .array(
      z.strictObject({
        run: z.string(),
        exit: z.int().default(0),
        prints: texts,
        never: texts,
        files: texts,
        absent: texts,
      }),
    )
    .min(1),
})
type Case = z.infer<typeof caseSchema>
type Step = Case['steps'][number]

const root = resolve('.')
const reports = join(root, 'test/reports')
const scratch = mkdtempSync(join(tmpdir(), 'atrous-reports-'))
const bin = join(scratch, 'bin')
mkdirSync(bin)
for (const [name, script] of [
  ['atrous', 'dist/atrous.js'],
  ['as-torch', 'build/test/support/as-torch.js'],
] as const) {
  writeFileSync(join(bin, name), `#!/bin/sh\nexec "${process.execPath}" "${join(root, script)}" "$@"\n`)
  chmodSync(join(bin, name), 0o755)
}
const scenes = await tinyData('reports')
test.after(() => {
  scenes.remove()
  rmSync(scratch, { recursive: true })
})

let trained: string | undefined
/** A checkpoint of the small network, trained once for all cases. */
function checkpoint(): string {
  if (trained === undefined) {
    const { code, errors } = scenes.trainInto('checkpoint', '--max-iters', '1')
    assert.is(code, 0, errors.join('\n'))
    trained = join(scenes.folder, 'checkpoint', 'best.safetensors')
  }
  return trained
}

/** Writes a PNG: RGB noise, or a label of one value. */
async function paint(path: string, [width, height, content]: Case['images'][string]): Promise<void> {
  mkdirSync(dirname(path), { recursive: true })
  const noise = () => {
    const random = new Random(width, height)
    return { data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)), width, height }
  }
  const background = { r: Number(content), g: Number(content), b: Number(content) }
  const label = () =>
    sharp({ create: { width, height, channels: 3, background } })
      .toColourspace('b-w')
      .png()
      .toBuffer()
  writeFileSync(path, await (content === 'noise' ? rgbPng(noise()) : label()))
}

/** A folder with everything that a case starts from. */
async function prepare(name: string, { needs, files, images }: Case): Promise<string> {
  const folder = join(scratch, name)
  cpSync(join(reports, name), folder, { recursive: true })
  if (needs.includes('scenes')) {
    cpSync(scenes.data, join(folder, 'data'), { recursive: true })
    const config = readFileSync(scenes.config, 'utf8').replaceAll(scenes.data, 'data')
    writeFileSync(join(folder, 'tiny.yaml'), config)
  }
  if (needs.includes('checkpoint')) cpSync(checkpoint(), join(folder, 'tiny.safetensors'))
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    writeFileSync(join(folder, file), text)
  }
  for (const [file, image] of Object.entries(images)) await paint(join(folder, file), image)
  return folder
}

function check(folder: string, { run, exit, prints, never, files, absent }: Step): void {
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` }
  const { status, signal, stdout, stderr } = spawnSync('bash', ['-o', 'pipefail', '-c', run], {
    ...{ cwd: folder, env, encoding: 'utf8', maxBuffer: 2 ** 26 },
  })
  const errors = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Warning: '))
  const all = `${stdout}\n${errors.join('\n')}`
  assert.is(status ?? signal, exit, `${run}\n${all}`)
  assert.not.match(all, /^ +at .*(:\d+:\d+|node:internal)/m, `${run}: a stack`)
  // check-data reports what it finds on stdout, and need not say it again as an error.
  const reported = /^atrous check-data [^&|;]*$/.test(run) && errors.length === 0
  if (exit === 1 && !reported) assert.match(errors.join('\n'), /^error: [^\n]*$/, `${run}: one line of error`)
  for (const pattern of prints) assert.match(all, new RegExp(pattern, 'm'), run)
  for (const pattern of never) assert.not.match(all, new RegExp(pattern, 'm'), run)
  for (const file of files) assert.ok(existsSync(join(folder, file)), `${run}: ${file} is missing`)
  for (const file of absent) assert.not.ok(existsSync(join(folder, file)), `${run}: ${file} is there`)
}

const names = readdirSync(reports, { withFileTypes: true }).filter((entry) => entry.isDirectory())
for (const { name } of names) {
  const found = caseSchema.parse(parse(readFileSync(join(reports, name, 'case.yaml'), 'utf8')))
  test(`${name}: ${found.about}`, async () => {
    const folder = await prepare(name, found)
    for (const step of found.steps) check(folder, step)
  })
}

test.run()
