// Which JPEG files libjpeg-turbo may decode in the place of `sharp`, and that both make the same bytes.
import sharp from 'sharp'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { jpegHeader } from '#dist/train/io/jpeg.js'
import { decodeTurboJpeg, hasTurboJpeg } from '#dist/train/io/turbojpeg.js'
import { Random } from '../../../cases/case.js'
import { skipUnless } from '../../support/skip.js'

const [width, height] = [61, 43]
const random = new Random('jpeg')
const pixels = Uint8Array.from(
  { length: width * height * 3 },
  (_, i) => 128 + 90 * Math.sin(i / 40 + (i % 3)) + 30 * (random.uniform() - 0.5),
)
const picture = () => sharp(pixels, { raw: { width, height, channels: 3 } })

// 19×13 pixels with colours at half the columns, which `sharp` does not write.
const halfColumns = Buffer.from(
  [
    '/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgy',
    'PC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/wAARCAANABMD',
    'ASEAAhEBAxEB/8QAFwAAAwEAAAAAAAAAAAAAAAAAAAUGB//EACMQAAEDBAIBBQAAAAAAAAAAAAECAxEABAUSBkEiEzHB0fD/xAAYAQACAwAAAAAA',
    'AAAAAAAAAAAFBgEDB//EACQRAAIBAwQABwAAAAAAAAAAAAECBAADEQUhIjETMkJxkdHh/9oADAMBAAIRAxEAPwB7ynP2mEsjYWpRvEeESaksSw5f',
    'Om4eggnbbbqpiDwhfmv6RgVfMmiBAIXzNTsXjTIDcq8R0Y+KKBrot9wHwd9+v2kQ25bcsHeoPGl3kOdC7t1RSpW2vvH6K0NbTdnjkpaRA02Md0a1',
    'HhCtWV2DsM/NMN8GXOSy54ikZYW4dvViehP3RTapVQFA69vqtGXTYwUDFf/Z',
  ].join(''),
  'base64',
)

/** Files of which all decoders make the same bytes. */
const plain = {
  'colours at half the rows and columns': await picture().jpeg({ chromaSubsampling: '4:2:0' }).toBuffer(),
  'colours at half the columns': halfColumns,
  'colours of every pixel': await picture().jpeg({ quality: 97, chromaSubsampling: '4:4:4' }).toBuffer(),
  grey: await picture().toColourspace('b-w').jpeg().toBuffer(),
  'EXIF without an orientation': await picture()
    .withExif({ IFD0: { Copyright: 'none' } })
    .jpeg()
    .toBuffer(),
  'EXIF that is upright': await picture().withMetadata({ orientation: 1 }).jpeg().toBuffer(),
}

/** The file with one byte changed. */
function changed(file: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(file)
  copy[at] = value
  return copy
}

test('what a file says of itself', async () => {
  for (const [name, file] of Object.entries(plain)) {
    const sides = file === halfColumns ? { width: 19, height: 13 } : { width, height }
    assert.equal(jpegHeader(file), { ...sides, channels: name === 'grey' ? 1 : 3, isPlain: true }, name)
  }
  const file = plain['colours at half the rows and columns']
  const frame = file.indexOf('ffc0', 'hex')
  const exif = plain['EXIF that is upright']
  // Behind the tag are its type and the number of its values.
  const orientation = exif.indexOf('Exif', 0, 'latin1') + 6
  const others = {
    progressive: await picture().jpeg({ progressive: true }).toBuffer(),
    'turned by EXIF': await picture().withMetadata({ orientation: 6 }).jpeg().toBuffer(),
    'EXIF of another byte order': changed(exif, orientation, 'X'.charCodeAt(0)),
    'EXIF with its directory outside': changed(exif, orientation + 6, 255),
    CMYK: await picture().toColourspace('cmyk').jpeg().toBuffer(),
    '12 bits': changed(file, frame + 4, 12),
    'no rows': changed(file, frame + 6, 0),
    'arithmetic coding': changed(file, frame + 1, 0xc9),
    'colours at half the rows': changed(file, frame + 11, 0x12),
    'a scan of one channel': changed(file, file.indexOf('ffda', 'hex') + 4, 1),
  }
  for (const [name, other] of Object.entries(others)) assert.is(jpegHeader(other)?.isPlain, false, name)
  assert.is(jpegHeader(others.CMYK)?.channels, 4)
  const truncated = file.subarray(0, file.indexOf('ffda', 'hex'))
  const none = { truncated, empty: Buffer.alloc(0), PNG: await picture().png().toBuffer() }
  for (const [name, other] of Object.entries(none)) assert.is(jpegHeader(other), undefined, name)
})

const turboTest = skipUnless(hasTurboJpeg(), 'libjpeg-turbo (libturbojpeg) is not installed')

turboTest('libjpeg-turbo makes the bytes of sharp', async () => {
  for (const [name, file] of Object.entries(plain)) {
    const { width: w = 0, height: h = 0 } = jpegHeader(file) ?? {}
    const decoded = await decodeTurboJpeg(file, w, h)
    const expected = await sharp(file).toColourspace('srgb').raw().toBuffer()
    assert.ok(decoded && Buffer.compare(decoded, expected) === 0, name)
  }
})

turboTest('what is wrong with a file is left to sharp', async () => {
  const file = plain['colours of every pixel']
  const scan = file.indexOf('ffda', 'hex')
  for (const length of [scan + 20, file.length >> 1, file.length - 2]) {
    assert.is(await decodeTurboJpeg(file.subarray(0, length), width, height), undefined, `${length} bytes`)
  }
  // A marker in the midst of the pixels.
  const damaged = changed(changed(file, file.length >> 1, 0xff), (file.length >> 1) + 1, 0xd9)
  assert.is(await decodeTurboJpeg(damaged, width, height), undefined)
  assert.is(await decodeTurboJpeg(Buffer.from('no image'), width, height), undefined)
})

test.run()
