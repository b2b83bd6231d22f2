import type { Events, Reply } from '../protocol.js'

/** Tells the page something that it did not ask for. */
export function tell<Name extends keyof Events>(event: Name, detail: Events[Name]): void {
  const reply: Reply = { event, detail }
  postMessage(reply)
}

/** A line for the page's log. */
export const log = (line: string): void => tell('log', { line })
