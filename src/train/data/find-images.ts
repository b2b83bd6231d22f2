import { readdirSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { globSync, isDynamicPattern } from 'tinyglobby'
import { UserError } from '../error.js'
import { explainUnreadable, isImageName, isOtherImageName } from '../io/decoders.js'

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

/** With slashes where the system has other signs between folders: a backslash in a pattern makes the next sign literal. */
const slashed = (path: string): string => path.split(sep).join('/')

/** Also keeps out what some systems store beside images, such as `._photo.jpg`. */
const isHidden = (path: string): boolean => path.split('/').some((part) => part.startsWith('.'))

const filesIn = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !entry.isDirectory() && !isHidden(entry.name))
    .map(({ name }) => join(folder, name))
    .sort()

/** Files that match a pattern, whose leading folders stand for themselves where they exist, whatever their names hold. */
function filesLike(pattern: string): string[] {
  let folder = dirname(pattern)
  while (!isFolder(folder) && dirname(folder) !== folder) folder = dirname(folder)
  const rest = slashed(relative(folder, pattern))
  // A pattern that begins with an exclamation mark would leave files out instead.
  return globSync(rest.replace(/^!(?!\()/, '\\!'), { cwd: folder, expandDirectories: false })
    .filter((path) => isHidden(rest) || !isHidden(path))
    .map((path) => join(folder, path))
    .sort()
}

function imagesOf(source: string, report: (line: string) => void): string[] {
  const stat = statSync(source, { throwIfNoEntry: false })
  if (stat?.isFile()) {
    const unreadable = explainUnreadable([source])
    if (unreadable !== undefined) throw new UserError(`--images: ${unreadable}`)
    return [source]
  }
  const fail = (why: string) => new UserError(`--images ${source}: ${why}`)
  const whole = stat?.isDirectory() === true
  if (!whole && !isDynamicPattern(slashed(source))) throw fail('there is no such file or folder')
  const files = whole ? filesIn(source) : filesLike(source)
  const images = files.filter(isImageName)
  if (images.length > 0) {
    const others = files.filter(isOtherImageName)
    if (others.length > 0)
      report(`passed over in ${source}: ${others.length} of other formats; ${explainUnreadable(others)}`)
    return images
  }
  throw fail(explainUnreadable(files) ?? (whole ? 'the folder holds no image' : 'no image has such a name'))
}

/**
 * Image files by file, folder (its images, not those of folders in it) or pattern (`photos/*.jpg`, `photos/**`), each
 * once, in the order given; those of a folder or pattern in the order of their names.
 * @param report receives a line about images that no decoder reads and that are passed over beside others
 * @throws UserError for what does not exist, where there is no image, and for images that no decoder reads
 */
export function findImages(sources: readonly string[], report: (line: string) => void = () => {}): string[] {
  const found = new Map<string, string>()
  for (const path of sources.flatMap((source) => imagesOf(source, report)))
    if (!found.has(resolve(path))) found.set(resolve(path), path)
  return [...found.values()]
}
