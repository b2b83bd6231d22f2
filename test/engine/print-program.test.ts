import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, Graph, read, scoped, traceOf, tracing } from '#dist/engine/graph.js'
import { printProgram, printTrace } from '#dist/engine/print-program.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { matmul } from '#dist/kernels/matmul.js'
import { mul, relu, sum } from '#dist/kernels/pointwise.js'
import { softmaxMax } from '#dist/kernels/softmax.js'
import { sgd } from '#dist/kernels/update.js'
import { nullDevice } from '../support/null-device.js'

test('a trace is a line for each node and each result, in columns', () => {
  const count = new Store(nullDevice(), 'state').declare('count', spec([2]))
  const graph = new Graph()
  const x = graph.input('x', spec([2, 3]))
  const w = graph.input('w', spec([3, 2]))
  const { y, label } = tracing(graph, () => {
    const y = scoped('head', () => matmul(x, w))
    assign(count, mul(read(count), read(count)))
    return { y: y.reshape(4), label: softmaxMax(y).label }
  })
  assert.is(
    printTrace(traceOf(graph, new Map([...Object.entries({ y, label })]))),
    `\
  %0.0 f32[2, 3]            = input x
  %1.0 f32[3, 2]            = input w
  %2.0 f32[2, 2]            = matmul          (%0.0, %1.0)  transposeA false, transposeB false  head
  %3.0 f32[2]               = variable count
  %4.0 f32[2]               = mul             (%3.0, %3.0)  space [2]
  %5.0 f32[2], %5.1 u32[2]  = softmaxMax      (%2.0)
  output y              = %2.0 as [4]
  output label          = %5.1
  variable state/count  ← %4.0`,
  )
})

async function printed(): Promise<string> {
  const device = nullDevice()
  const store = new Store(device, 'model')
  const [weight, momentum] = ['weight', 'momentum'].map((name) => store.declare(name, spec([8, 8])))
  const inputs = { x: spec([64, 8]), rate: spec([]) }
  const program = await compile(
    device,
    inputs,
    ({ x, rate }) => {
      if (!weight || !momentum) throw new Error('unreachable: there are two variables')
      const loss = scoped('layer', () => sum(relu(matmul(x, read(weight)))))
      const [gradient] = grad(loss, [read(weight)])
      if (!gradient) throw new Error('unreachable: there is one gradient')
      const next = sgd({ parameter: read(weight), momentumBuffer: read(momentum), gradient, learningRate: rate })
      assign(weight, next.parameter)
      assign(momentum, next.momentumBuffer)
      return { loss }
    },
    { label: 'step' },
  )
  const text = printProgram(program)
  program.destroy()
  return text
}

test('a program is its trace before and after the passes, its commands and its memory, the same every time', async () => {
  const text = await printed()
  assert.is(await printed(), text)
  assert.match(text, /^program step\n\n# trace, \d+ nodes\n/)
  const [, traced = '', passed = '', commands = '', memory = ''] = text.split('\n# ')
  assert.match(traced, /= relu +\(%\d+\.0\) .* layer$/m)
  assert.match(passed, /^after the passes, \d+ nodes\n/)
  assert.match(passed, /= relu\+sum +\(%\d+\.0\)/)
  assert.not.match(passed, /= relu /)
  assert.match(
    commands,
    /^ {2}matmul|^ {2}conv2d .* grid \d+×1×1 +%0\.0 input x, %\d+\.0 variable model\/weight → %\d+\.0 b0/m,
  )
  assert.match(commands, /^ {2}sgd .* → %\d+\.0 variable model\/weight, %\d+\.1 variable model\/momentum$/m)
  assert.match(memory, /^ {2}inputs +2 +\d+\.\d MiB$/m)
  assert.match(memory, /^ {2}b0 +2048 bytes$/m)
})

test.run()
