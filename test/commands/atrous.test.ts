// The dispatcher `atrous`, what all commands say of themselves, and how a command is started again.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { delimiter, join, resolve, sep } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { startOf } from '#dist/command.js'
import { start } from '../support/child.js'
import { run, tinyData } from '../support/tiny-run.js'

const commands = ['train', 'compare', 'evaluate', 'predict', 'convert', 'split', 'check-data', 'tune', 'doctor', 'demo']

test('the help lists every command in a line', () => {
  const { code, stdout, errors } = run('atrous.js', ['--help'])
  assert.is(code, 0, errors.join('\n'))
  const listed = stdout
    .slice(stdout.indexOf('Commands:'))
    .split('\n')
    .slice(1, 1 + commands.length)
  assert.equal(
    listed.map((line) => /^ {2}([\w-]+) +\w.{10,}/.exec(line)?.[1]),
    commands,
  )
})

test('the version is that of the package', () => {
  const { version, bin } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string; bin: string }
  assert.is(run('atrous.js', ['--version']).stdout, `${version}\n`)
  assert.match(readFileSync(bin, 'utf8'), /^#!\/usr\/bin\/env node\n/)
})

test('an unknown command or option gives one line with the nearest one, and exit code 1', () => {
  for (const [args, nearest] of [
    [['trian'], /unknown command 'trian'.*train/],
    [['--versoin'], /unknown option '--versoin'.*--version/],
    [['doctor', '--gpus', 'x'], /unknown option '--gpus'.*--gpu/],
  ] as const) {
    const { code, stdout, errors } = run('atrous.js', args)
    assert.is(code, 1)
    assert.is(stdout, '')
    assert.is(errors.length, 1, errors.join('\n'))
    assert.match(errors[0] ?? '', nearest)
  }
})

for (const name of commands) {
  test(`${name}: help in the same words however it is started, with examples, and without empty defaults`, () => {
    const direct = run(`${name}.js`, ['--help'])
    const dispatched = run('atrous.js', [name, '--help'])
    assert.is(direct.code, 0)
    assert.match(direct.stdout, `Usage: node dist/${name}.js [options]`)
    assert.match(direct.stdout, `Examples:\n  node dist/${name}.js`)
    assert.is(dispatched.stdout, direct.stdout.replaceAll(`node dist/${name}.js`, `node dist/atrous.js ${name}`))
    assert.is(run('atrous.js', ['help', name]).stdout, dispatched.stdout)
    assert.not.match(direct.stdout, /default: (\[\]|""|undefined)/)
    assert.equal(dispatched.errors, [])
  })
}

test('exit code, output and arguments are those of the command', () => {
  for (const [name, args] of [
    ['check-data', ['--config', 'nowhere.yaml']],
    ['split', ['--images', 'a b', '--out', 'nowhere', '--labeled', '1', '--data-root', '-- x']],
    ['convert', ['--', '--version', '-h']],
  ] as const) {
    const direct = run(`${name}.js`, args)
    assert.is(direct.code, 1)
    assert.is(direct.errors.length, 1)
    assert.equal(run('atrous.js', [name, ...args]), direct)
  }
})

test('a signal reaches the command, which names how it resumes', async () => {
  const { folder, trainArgs, remove } = await tinyData('atrous')
  const child = start('atrous.js', ['train', ...trainArgs('run', '--set', 'epochs=50')])
  await child.until(/epoch 2\/50 1\/3/)
  child.signal('SIGINT')
  assert.is(await child.ended, 130, child.output())
  assert.match(child.output(), `to resume: node dist/atrous.js train --config`)
  assert.ok(existsSync(join(folder, 'run', 'latest.safetensors')))
  remove()
})

/** A process that gives `body` to `runCommand`. */
function commandOf(body: string) {
  const module = pathToFileURL(resolve('dist', 'command.js')).href
  const script = `import { runCommand } from '${module}'\nawait runCommand(async () => {${body}})`
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] })
}

test('what a command prints arrives whole, however slowly it is read', async () => {
  const child = commandOf(`console.log('x'.repeat(2 ** 22)); throw new Error('y'.repeat(2 ** 20))`)
  const lengths = await Promise.all(
    [child.stdout, child.stderr].map(async (stream) => {
      let length = 0
      for await (const part of stream) {
        length += String(part).length
        await setTimeout(5)
      }
      return length
    }),
  )
  assert.is(lengths[0], 2 ** 22 + 1)
  assert.ok((lengths[1] ?? 0) > 2 ** 20)
})

test('a command ends as it would where nobody reads what it prints any more', async () => {
  const child = commandOf(`
    console.log('begin')
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(() => resolve(console.log(i)), 5))
    process.exitCode = 5
    console.error('end')`)
  child.stdout.once('data', () => child.stdout.destroy())
  let errors = ''
  child.stderr.on('data', (part) => {
    errors += String(part)
  })
  const [code] = await once(child, 'close')
  assert.is(errors, 'end\n')
  assert.is(code, 5)
})

test('a command is named as it was started', () => {
  const here = resolve('.')
  const path = [join(here, 'bin'), join(here, 'node_modules', '.bin')].join(delimiter)
  const at = (...parts: string[]) => startOf('train', join(here, ...parts), here, path)
  assert.is(at('dist', 'train.js'), `node ${join('dist', 'train.js')}`)
  assert.is(at('dist', 'atrous.js'), `node ${join('dist', 'atrous.js')} train`)
  assert.is(at('node_modules', '.bin', 'atrous'), 'npx atrous train')
  assert.is(at('bin', 'atrous'), 'atrous train')
  assert.is(at('my folder', 'train.js'), `node '${join('my folder', 'train.js')}'`)
  assert.is(at('..', 'other', 'dist', 'train.js'), `node ${join(here, '..', 'other', 'dist', 'train.js')}`)
  assert.is(at('tools', 'atrous'), `${join('tools', 'atrous')} train`, 'a folder that the shell does not search')
  assert.is(at('atrous'), `.${sep}atrous train`)
  const bin = join(here, '..', 'other', 'node_modules', '.bin', 'atrous')
  assert.is(startOf('train', bin, here, ''), `${bin} train`, 'the project of npx is another')
  assert.is(at(`it's [a] $(dir)`, 'train.js'), `node 'it'\\''s [a] $(dir)${sep}train.js'`)
})

test.run()
