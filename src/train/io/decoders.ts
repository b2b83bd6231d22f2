import { extname } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import sharp from 'sharp'

/** Formats that are read: their decoders in libvips, and the endings of file names. */
export const imageFormats = [
  { name: 'JPEG', decoder: 'Jpeg', endings: ['.jpg', '.jpeg', '.jpe', '.jfif'] },
  { name: 'PNG', decoder: 'Png', endings: ['.png'] },
  { name: 'WebP', decoder: 'Webp', endings: ['.webp'] },
  { name: 'TIFF', decoder: 'Tiff', endings: ['.tif', '.tiff'] },
  { name: 'GIF', decoder: 'Nsgif', endings: ['.gif'] },
  { name: 'AVIF', decoder: 'Heif', endings: ['.avif'] },
] as const

/** Images that people have, and no decoder reads. */
const otherFormats: Readonly<Record<string, string>> = {
  '.bmp': 'BMP',
  '.heic': 'HEIC',
  '.heif': 'HEIF',
  '.jxl': 'JPEG XL',
  '.jp2': 'JPEG 2000',
  '.j2k': 'JPEG 2000',
  '.ppm': 'PPM',
  '.pgm': 'PGM',
  '.pbm': 'PBM',
  '.pnm': 'PNM',
  '.tga': 'TGA',
  '.psd': 'Photoshop',
  '.svg': 'SVG',
  '.ico': 'ICO',
  '.exr': 'OpenEXR',
  '.dcm': 'DICOM',
  '.dng': 'DNG',
}

// The content of a file chooses its decoder, whatever its name is: only decoders of images as data sets have them.
// All threads of a process share one list of decoders, so that a thread that set it again when it starts would take them
// away from the others for a moment.
if (isMainThread) {
  sharp.block({ operation: ['VipsForeignLoad'] })
  sharp.unblock({ operation: imageFormats.map(({ decoder }) => `VipsForeignLoad${decoder}`) })
}
sharp.cache(false)
// Several images are decoded at a time instead.
sharp.concurrency(1)

/** Decodes untrusted images: with few decoders, and without a cache. The main thread imports this before others. */
export { sharp }

const endings: ReadonlySet<string> = new Set(imageFormats.flatMap(({ endings: ofFormat }) => ofFormat))
const endingOf = (name: string): string => extname(name).toLowerCase()

/** Whether the ending of a name is that of an image that can be read; what the file holds shows when it is. */
export const isImageName = (name: string): boolean => endings.has(endingOf(name))

const readable = imageFormats.map(({ name }) => name).join(', ')

/** Whether the ending of a name is that of an image that no decoder reads. */
export const isOtherImageName = (name: string): boolean => otherFormats[endingOf(name)] !== undefined

/** What is wrong with the first file whose ending is that of a format that is not read, if there is one. */
export function explainUnreadable(files: readonly string[]): string | undefined {
  const file = files.find(isOtherImageName)
  if (file === undefined) return undefined
  return `${file} is a file of ${otherFormats[endingOf(file)]}, which is not read: convert it to PNG (read are ${readable})`
}
