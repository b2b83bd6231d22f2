import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { dryDevice } from '#dist/engine/dry-device.js'
import { Graph, tracing } from '#dist/engine/graph.js'
import type { Node } from '#dist/engine/ir.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import type { ConvAttrs } from '#dist/kernels/conv2d.js'
import { chooseModel, createModel } from '#dist/models/index.js'
import { lowLogits, parametersOf, type SegmentationModel } from '#dist/models/segmentation.js'
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

/** `names.json` of several models: their parameters in the order of the optimizer, which are all of their tensors. */
interface GoldenModels {
  readonly models: Readonly<
    Record<
      string,
      {
        readonly config: Readonly<Record<string, unknown>>
        readonly total: number
        readonly encoder: number
        readonly decoder: number
        readonly trained_parameters: number
        readonly without_gradient: readonly string[]
        readonly tensors: number
        readonly parameters: readonly (readonly [name: string, shape: readonly number[]])[]
        readonly decoder_by_classes: Readonly<Record<string, number>>
      }
    >
  >
}

/** Checks the names, shapes and counts of DINOv2 with DPT, of the sizes that a file has. */
function checkModels(device: Device, { models }: GoldenModels): CaseResult[] {
  return Object.entries(models).flatMap(([size, golden]) => {
    const of = (nclass: number) => {
      const choice = { backbone: `dinov2-${size}`, nclass }
      return createModel(new Store(dryDevice(device).device, size), chooseModel(choice))
    }
    const { nclass, ...config } = golden.config
    const model = of(Number(nclass))
    const count = (entries: readonly (readonly [string, readonly number[]])[], prefix: string) =>
      entries.reduce((sum, [name, shape]) => sum + (name.startsWith(prefix) ? elements(shape) : 0), 0)
    const entries = [...stateShapes(model)]
    const trained = new Set(parametersOf(model).map(({ name }) => name))
    const untrained = entries.flatMap(([name]) => (trained.has(name) ? [] : [name]))
    const own = model.config
    return [
      exact(
        `${size}: widths`,
        Object.keys(config).map((key) => own[key]),
        Object.values(config),
      ),
      exact(`${size}: parameters`, entries, golden.parameters),
      exact(`${size}: tensors`, entries.length, golden.tensors),
      exact(`${size}: values`, count(entries, ''), golden.total),
      exact(`${size}: values of the encoder`, count(entries, 'backbone.'), golden.encoder),
      exact(`${size}: values of the head`, count(entries, 'head.'), golden.decoder),
      exact(`${size}: without gradient`, untrained.sort(), [...golden.without_gradient].sort()),
      exact(
        `${size}: trained values`,
        parametersOf(model).reduce((sum, { spec }) => sum + elements(spec.shape), 0),
        golden.trained_parameters,
      ),
      ...Object.entries(golden.decoder_by_classes).map(([classes, values]) =>
        exact(
          `${size}: values of the head of ${classes} classes`,
          count([...stateShapes(of(Number(classes)))], 'head.'),
          values,
        ),
      ),
    ]
  })
}

/** Checks `names.json` of a folder: state_dict, parameters, convolutions and batch norms. Nothing is computed. */
export function checkNames(device: Device, folder: string): CaseResult[] {
  const path = join(folder, 'names.json')
  const recorded = readJson<GoldenNames | GoldenModels>(path)
  if ('models' in recorded) return checkModels(device, recorded)
  const golden = recorded
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
  const settings = Object.entries(golden.convolutions ?? {})
  results.push(...settings.map(([name, settings]) => exact(`convolution ${name}`, convolutions.get(name), settings)))
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
