import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { UserError } from '../error.js'

/** Also keeps out what some systems store beside images, such as `._photo.jpg`. */
const isShown = (name: string) => !name.startsWith('.') && image.test(name)
const image = /\.(jpe?g|png|webp|tiff?|gif|avif|bmp)$/i
const special = /[*?[]/

/** A pattern of one part of a path as a regular expression: `*`, `?` and sets such as `[0-9]`. */
function partPattern(part: string): RegExp {
  const source = part.replace(/\[!?[^\]/]+\]|[\s\S]/g, (token) => {
    if (token === '*') return '.*'
    if (token === '?') return '.'
    if (token.length > 1) return token.replace(/^\[!/, '[^').replaceAll('\\', '\\\\')
    return token.replace(/[.+^${}()|[\]\\]/, '\\$&')
  })
  try {
    return new RegExp(`^${source}$`)
  } catch {
    throw new UserError(`--images: '${part}' is no pattern: use *, ? and sets such as [0-9]`)
  }
}

const namesIn = (folder: string) =>
  readdirSync(folder || '.', { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))

/** Paths that match a pattern; `**` stands for any folders. */
function matching(pattern: string): string[] {
  let found = [pattern.startsWith('/') ? '/' : '']
  for (const part of pattern
    .replace(/\*\*$/, '**/*')
    .split('/')
    .filter((text) => text !== '')) {
    if (part === '**') found = found.flatMap((folder) => [folder, ...foldersBelow(folder)])
    else if (!special.test(part)) found = found.map((folder) => join(folder, part)).filter((path) => existsSync(path))
    else {
      const wanted = partPattern(part)
      const inside = (folder: string) =>
        namesIn(folder).filter(({ name }) => wanted.test(name) && (part.startsWith('.') || !name.startsWith('.')))
      found = found.filter(isFolder).flatMap((folder) => inside(folder).map(({ name }) => join(folder, name)))
    }
  }
  return found
}

const isFolder = (path: string) => statSync(path || '.', { throwIfNoEntry: false })?.isDirectory() === true

function foldersBelow(folder: string): string[] {
  if (!isFolder(folder)) return []
  const folders = namesIn(folder).filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
  return folders.flatMap(({ name }) => [join(folder, name), ...foldersBelow(join(folder, name))])
}

/**
 * Image files by file, folder (its images, not those of folders in it) or pattern (`photos/*.jpg`, `photos/**`), each
 * once, in the order given.
 * @throws UserError for what does not exist, and where there is no image
 */
export function findImages(sources: readonly string[]): string[] {
  const found = sources.flatMap((source) => {
    const stat = statSync(source, { throwIfNoEntry: false })
    if (stat?.isFile()) return [source]
    if (stat?.isDirectory()) {
      const images = namesIn(source).filter((entry) => !entry.isDirectory() && isShown(entry.name))
      if (images.length === 0) throw new UserError(`--images ${source}: the folder holds no image`)
      return images.map(({ name }) => join(source, name))
    }
    if (!special.test(source)) throw new UserError(`--images ${source}: there is no such file or folder`)
    const files = matching(source).filter((path) => image.test(path) && !isFolder(path))
    if (files.length === 0) throw new UserError(`--images ${source}: no image has such a name`)
    return files
  })
  return [...new Set(found)]
}
