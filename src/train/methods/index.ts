import type { z } from 'zod'
import { chooseModel, inputOf, type ModelChoice, type ModelSpec } from '../../models/index.js'
import { UserError } from '../error.js'
import { augseg } from './augseg.js'
import { coTraining } from './co-training.js'
import { dualTeacher } from './dual-teacher.js'
import type { CommonSettings, Method, Settings } from './method.js'
import { prevmatch } from './prevmatch.js'
import { supervised } from './supervised.js'
import { unimatch } from './unimatch.js'
import { unimatchV2 } from './unimatch-v2.js'

/** The training methods, in the order in which they are listed. */
const table: Method[] = [supervised, unimatch, prevmatch, augseg, dualTeacher, coTraining, unimatchV2]

/** All training methods. */
export const methods = (): readonly Method[] => table

/**
 * Adds a method to the table, for programs that bring their own. Configurations that are read later may name it, and hold
 * its keys. Throws where the name is taken.
 */
export function registerMethod(method: Method): void {
  if (table.some(({ name }) => name === method.name)) throw new Error(`there is a method '${method.name}' already`)
  table.push(method)
}

/** A method by name. Throws where there is none. */
export function methodOf(name: string): Method {
  const method = table.find((entry) => entry.name === name)
  if (!method) throw new Error(`there is no method '${name}'`)
  return method
}

// The configuration was checked by a schema with the keys of all methods.
type AnySettings = CommonSettings & ModelChoice & Settings<z.ZodRawShape>

/** The models of a configuration, the one that checkpoints hold under plain names first. */
export function modelsOf(config: CommonSettings & ModelChoice): readonly [ModelSpec, ...ModelSpec[]] {
  const [own, ...others] = methodOf(config.method).models?.(config as AnySettings) ?? []
  return own ? [own, ...others] : [chooseModel(config)]
}

/**
 * The model that a training's checkpoints hold under plain names.
 * @throws UserError where it is the configuration's and reads what its method does not give it
 */
export function firstModelOf(config: CommonSettings & ModelChoice): ModelSpec {
  const method = methodOf(config.method)
  const [model] = modelsOf(config)
  if (!method.models && inputOf(model) === 'coefficients') {
    throw new UserError(
      `'backbone' is ${config.backbone}, which reads DCT coefficients, and the method ${method.name} gives it RGB images: ` +
        'choose another backbone',
    )
  }
  return model
}

/** The file of pretrained weights of a training's model by its number. */
export function pretrainedOf(
  config: CommonSettings & { readonly pretrained?: string | undefined },
  index: number,
): string | undefined {
  return methodOf(config.method).pretrained?.(config as CommonSettings & AnySettings)[index] ?? config.pretrained
}

/** The images of which an epoch of a training is one pass, where it takes any. */
export const epochImages = ({ method, epoch_of }: Pick<CommonSettings, 'method' | 'epoch_of'>) =>
  epoch_of ?? methodOf(method).epochOf ?? 'unlabeled'

/** The keys that only methods other than this one read. */
export function keysOfOthers(name: string): readonly string[] {
  const own = table.find((method) => method.name === name)?.keys ?? {}
  return Object.keys(methodKeys()).filter((key) => !Object.hasOwn(own, key))
}

/** The keys that methods add to the configuration. Methods that share a key share its schema. */
export const methodKeys = (): z.ZodRawShape => Object.assign({}, ...table.map(({ keys }) => keys))
