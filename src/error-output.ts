import type { OutputConfiguration } from 'commander'

/** Complaints about arguments in one line, with the suggestion. */
export const errorOutput: OutputConfiguration = {
  outputError: (text, write) => write(`${text.trim().replaceAll('\n', ' ')}\n`),
}
