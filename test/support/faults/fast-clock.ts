// A minute passes in half a second for whoever waits for more than ten seconds.
const { setTimeout } = globalThis
const fast = (body: () => void, milliseconds = 0) =>
  setTimeout(body, milliseconds > 10_000 ? milliseconds / 120 : milliseconds)
globalThis.setTimeout = Object.assign(fast, { __promisify__: setTimeout.__promisify__ })
