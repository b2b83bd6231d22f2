/** What all errors are that this package names. Each has its class as its `name`, also in minified code. */
export class AtrousError extends Error {
  override name = 'AtrousError'
}

/** No adapter, or none of that name, or none that gives a device. The message is meant for the user. */
export class NoAdapterError extends AtrousError {
  override name = 'NoAdapterError'
}
