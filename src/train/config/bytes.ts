const units: Readonly<Record<string, number>> = { GiB: 2 ** 30, MiB: 2 ** 20, GB: 1e9, MB: 1e6 }

/** The bytes that a text such as `8GiB`, `1.5 GiB`, `800MiB`, `8GB` or `800MB` means; undefined for any other text. */
export function parseBytes(text: string): number | undefined {
  const [, count, unit = ''] = /^(\d{1,9}(?:\.\d{1,6})?) ?([GM]i?B)$/.exec(text) ?? []
  const bytes = Math.floor(Number(count) * (units[unit] ?? Number.NaN))
  return bytes > 0 ? bytes : undefined
}
