// node --import …/variant.js?without=shader-f16,…&gpu&defaultLimits&stores=truncating&groups=backwards
//
// Loaded before a test, it makes the adapters of the machine differ from what they are; see `Imitation`.
import { globals } from 'webgpu'
import { imitate, truncatingStores, workgroupsBackwards } from './imitated-adapter.js'

const parameters = new URL(import.meta.url).searchParams
const compilers = [
  ...(parameters.get('stores') === 'truncating' ? [truncatingStores] : []),
  ...(parameters.get('groups') === 'backwards' ? [workgroupsBackwards] : []),
]
const imitation = {
  gpu: parameters.has('gpu'),
  defaultLimits: parameters.has('defaultLimits'),
  without: parameters.get('without')?.split(',') ?? [],
  ...(compilers.length > 0
    ? { compiler: (source: string) => compilers.reduce((text, each) => each(text), source) }
    : {}),
}
const { prototype } = (globals as { readonly GPU: typeof GPU }).GPU
const { requestAdapter } = prototype
prototype.requestAdapter = async function (...args) {
  const adapter = await requestAdapter.apply(this, args)
  return adapter && imitate(adapter, imitation)
}
