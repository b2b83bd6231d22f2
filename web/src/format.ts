/** Milliseconds in words. */
export const milliseconds = (value: number): string => `${value.toFixed(value < 10 ? 1 : 0)} ms`

/** The name of a file without folder and ending, with dashes for blanks. */
export const stem = (name: string): string => name.replace(/\.[^.]*$/, '').replaceAll(/[^\w.-]+/g, '-') || 'picture'
