import type { z } from 'zod'
import { chooseModel, inputOf, type ModelChoice, type ModelSpec } from '../../models/index.js'
import { UserError } from '../error.js'
import type { CommonSettings, Method, Settings } from './method.js'
import { prevmatch } from './prevmatch.js'
import { supervised } from './supervised.js'
import { unimatch } from './unimatch.js'

/** The training methods, in the order in which they are listed. */
const table: Method[] = [supervised, unimatch, prevmatch]

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

/**
 * The model that a training's checkpoints hold under plain names.
 * @throws UserError where it is the configuration's and reads what its method does not give it
 */
export function firstModelOf(config: CommonSettings & ModelChoice): ModelSpec {
  const method = methodOf(config.method)
  // The configuration was checked by a schema with the keys of all methods.
  const own = method.model?.(config as unknown as Settings<typeof method.keys>)
  const model = own ?? chooseModel(config)
  if (!own && inputOf(model) === 'coefficients') {
    throw new UserError(
      `'backbone' is ${config.backbone}, which reads DCT coefficients, and the method ${method.name} gives it RGB images: ` +
        'choose another backbone',
    )
  }
  return model
}

/** The keys that only methods other than this one read. */
export function keysOfOthers(name: string): readonly string[] {
  const own = table.find((method) => method.name === name)?.keys ?? {}
  return Object.keys(methodKeys()).filter((key) => !Object.hasOwn(own, key))
}

/** The keys that methods add to the configuration. Methods that share a key share its schema. */
export const methodKeys = (): z.ZodRawShape => Object.assign({}, ...table.map(({ keys }) => keys))
