import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { Graph, tracing } from '#dist/engine/graph.js'
import type { Node } from '#dist/engine/ir.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import type { ConvAttrs } from '#dist/kernels/conv2d.js'
import { createModel } from '#dist/models/index.js'
import { lowLogits, type SegmentationModel } from '#dist/models/segmentation.js'
import { stateShapes } from '#dist/models/weights.js'
import { readJson } from './files.js'
import { modelOf, type RecordedModel } from './model-choice.js'
import type { CaseResult } from './report.js'

/** `names.json`: what a model consists of. */
interface GoldenNames {
  readonly model: RecordedModel['model']
  readonly parameters: { readonly total: number; readonly backbone: number }
  readonly batch_norms?: {
    readonly backbone: number
    readonly decoder: number
    readonly eps: number
    readonly momentum_backbone: number
    readonly momentum_decoder: number
  }
  readonly state_dict: readonly {
    readonly name: string
    readonly shape: readonly number[]
    readonly dtype: string
    readonly parameter: boolean
  }[]
  readonly convolutions?: Readonly<Record<string, Readonly<Record<string, number | boolean>>>>
  readonly optimizer_param_names_by_index?: readonly string[]
}

const exact = (name: string, actual: unknown, expected: unknown): CaseResult => ({
  name,
  error: JSON.stringify(actual) === JSON.stringify(expected) ? 0 : 1,
  tolerance: 0,
})

const moduleOf = (variable: Variable): string => variable.name.slice(0, variable.name.lastIndexOf('.'))

/** The module whose variable a call reads as its input `index`. */
function moduleIn({ inputs }: Node, index: number): string {
  const leaf = inputs[index]?.node.leaf
  return leaf && 'variable' in leaf ? moduleOf(leaf.variable) : ''
}

/** Settings of all convolutions of a training pass, by their modules. */
function convolutionsOf({ store }: SegmentationModel, nodes: readonly Node[]): Map<string, object> {
  const calls = nodes.filter(({ op }) => op?.name === 'conv2d')
  return new Map(
    calls.map((node) => {
      const { stride, padding, dilation, groups } = node.attrs as ConvAttrs
      const module = moduleIn(node, 1)
      const bias = store.all().some(({ name }) => name === `${module}.bias`)
      return [module, { kernel: node.inputs[1]?.shape[0], stride, padding, dilation, groups, bias }]
    }),
  )
}

/** Checks `names.json` of a folder: state_dict, parameters, convolutions and batch norms. Nothing is computed. */
export function checkNames(device: Device, folder: string): CaseResult[] {
  const path = join(folder, 'names.json')
  const golden = readJson<GoldenNames>(path)
  const store = new Store(device, 'names')
  const model = createModel(store, modelOf({ model: golden.model }, path))
  const graph = new Graph()
  const image = graph.input('image', spec([2, 65, 65, model.inputChannels]))
  tracing(graph, () => lowLogits(model, image, { training: true }))

  const entries = [...stateShapes(model)]
  const parameters = new Set(model.groups.flatMap((group) => group.parameters.map(({ name }) => name)))
  const results = golden.state_dict.map(({ name, shape, dtype, parameter }, i) => {
    const [actual, extents = []] = entries[i] ?? []
    const type = actual !== undefined && model.batchesTracked.has(actual) ? 'I64' : 'F32'
    return exact(name, [actual, extents, type, parameters.has(name)], [name, shape, dtype, parameter])
  })
  const [backbone = 0, rest = 0] = model.groups.map((group) =>
    group.parameters.reduce((sum, { spec }) => sum + elements(spec.shape), 0),
  )
  results.push(
    exact('entries', entries.length, golden.state_dict.length),
    exact('parameters', [backbone, backbone + rest], [golden.parameters.backbone, golden.parameters.total]),
  )
  if (golden.optimizer_param_names_by_index) {
    results.push(exact('order of the optimizer', [...parameters], golden.optimizer_param_names_by_index))
  }
  const convolutions = convolutionsOf(model, graph.nodes)
  const recorded = Object.entries(golden.convolutions ?? {})
  results.push(...recorded.map(([name, settings]) => exact(`convolution ${name}`, convolutions.get(name), settings)))
  if (golden.batch_norms) {
    const { eps, momentum_backbone, momentum_decoder, ...counts } = golden.batch_norms
    const found = { backbone: 0, decoder: 0 }
    for (const node of graph.nodes.filter(({ op }) => op?.name === 'batchNormStatistics')) {
      const module = moduleIn(node, 1)
      const part = module.startsWith('backbone.') ? 'backbone' : 'decoder'
      found[part]++
      const momentum = part === 'backbone' ? momentum_backbone : momentum_decoder
      results.push(exact(`batch norm ${module}`, node.attrs, { momentum, eps }))
    }
    results.push(exact('batch norms', found, counts))
  }
  store.destroy()
  return results
}
