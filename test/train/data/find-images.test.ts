// Which files are taken for images: by name, in folders and by pattern, and what is said of formats that are not read.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readImage } from '#dist/train/data/dataset.js'
import { findImages } from '#dist/train/data/find-images.js'
import { pairFolders } from '#dist/train/data/folders.js'
import { imageFormats, isImageName } from '#dist/train/io/decoders.js'
import { refuses } from '../../support/refuses.js'

const test = suite('find-images')
const folder = mkdtempSync(join(tmpdir(), 'atrous-find-'))
const at = (...names: string[]) => join(folder, ...names)
test.after(() => rmSync(folder, { recursive: true }))

function files(...names: string[]): void {
  for (const name of names) {
    mkdirSync(dirname(at(name)), { recursive: true })
    writeFileSync(at(name), '')
  }
}
const found = (...sources: string[]) =>
  findImages(sources.map((source) => at(source))).map((path) => path.slice(folder.length + 1))

test('every format of the list is decoded, and the list has all its endings', async () => {
  for (const { name, endings } of imageFormats) {
    const [ending = ''] = endings
    const bytes = await sharp(Buffer.alloc(12 * 4 * 3, 77), { raw: { width: 12, height: 4, channels: 3 } })
      .toFormat(name.toLowerCase() as 'png')
      .toBuffer()
    writeFileSync(at(`any${ending}`), bytes)
    const { width, height, data } = await readImage(at(`any${ending}`))
    assert.equal([width, height, data.length], [12, 4, 144], name)
    assert.ok(
      data.every((value) => Math.abs(value - 77) <= 1),
      name,
    )
    const decoder = sharp.format[name === 'AVIF' ? 'heif' : (name.toLowerCase() as 'png')]
    assert.equal([...endings].sort(), [...(decoder.input.fileSuffix ?? [])].sort(), name)
    assert.ok(isImageName(`x${ending.toUpperCase()}`))
    rmSync(at(`any${ending}`))
  }
})

test('images are found by file, folder and pattern, each once', async () => {
  files('1.jpg', '2.PNG', 'notes.txt', '.hidden.jpg', 'deep/3.jpeg', 'deep/er/4.jpg', 'deep/.not/5.jpg', 'a[1].jpg')
  assert.equal(found('.'), ['1.jpg', '2.PNG', 'a[1].jpg'])
  assert.equal(found('*.jpg'), ['1.jpg', 'a[1].jpg'])
  assert.equal(found('**/*.jp*g', '1.jpg'), ['1.jpg', 'a[1].jpg', 'deep/3.jpeg', 'deep/er/4.jpg'])
  assert.equal(found('deep/er/4.jpg', '*.jpg', 'deep/../1.jpg'), ['deep/er/4.jpg', '1.jpg', 'a[1].jpg'])
  assert.equal(found('deep/**'), ['deep/3.jpeg', 'deep/er/4.jpg'])
  assert.equal(found('[0-9].*'), ['1.jpg', '2.PNG'])
  assert.equal(found('[!0-9]*'), ['a[1].jpg'])
  assert.equal(found('.hid*'), ['.hidden.jpg'])
  assert.equal(found('*.{PNG,txt}'), ['2.PNG'])
  assert.equal(found('a[1].jpg', 'deep/?.jpeg'), ['a[1].jpg', 'deep/3.jpeg'])
  assert.equal(findImages([join(relative('.', folder), '*.PNG')]), [relative('.', at('2.PNG'))])
  await refuses(() => found('nothing'), 'nothing: there is no such file or folder')
  await refuses(() => found('nowhere/*.jpg'), 'no image has such a name')
  await refuses(() => found('deep/er/*.png'), 'no image has such a name')
  await refuses(() => found('[1.jpg'), '[1.jpg: there is no such file or folder')
})

test('folders that exist stand for themselves, whatever their names hold', () => {
  files('a [2020] (b)/{x}/1.jpg', 'a [2020] (b)/{x}/2.jpg')
  assert.equal(found('a [2020] (b)/{x}/*.jpg'), ['a [2020] (b)/{x}/1.jpg', 'a [2020] (b)/{x}/2.jpg'])
  assert.equal(found('a [2020] (b)/**/2*'), ['a [2020] (b)/{x}/2.jpg'])
})

test('signs of patterns can be taken literally', () => {
  files('marks/!1.jpg', 'marks/*2.jpg', 'marks/3.jpg')
  assert.equal(found('marks/!*'), ['marks/!1.jpg'])
  assert.equal(found('marks/*2.jpg'), ['marks/*2.jpg'])
  if (process.platform !== 'win32') assert.equal(found('marks/\\**'), ['marks/*2.jpg'])
})

test('links to files and folders are followed, in circles only once', () => {
  files('real/1.jpg')
  symlinkSync(at('real', '1.jpg'), at('real', 'link.jpg'))
  symlinkSync(at('real'), at('real', 'again'))
  assert.equal(found('real'), ['real/1.jpg', 'real/link.jpg'])
  const all = found('real/**/*.jpg')
  assert.ok(all.includes('real/1.jpg') && all.includes('real/link.jpg'), all.join())
  assert.ok(all.length < 10, all.join())
})

test('formats that no decoder reads are passed over, or named with what to do', async () => {
  files('mixed/1.bmp', 'mixed/2.jpg', 'bitmaps/1.bmp', 'bitmaps/notes.txt', 'bitmaps/2.png.heic', 'gifs/1.gif')
  const remedy = ['is a file of BMP, which is not read: convert it to PNG', 'JPEG, PNG, WebP, TIFF, GIF, AVIF']
  assert.equal(found('mixed', 'mixed/*'), ['mixed/2.jpg'])
  const lines: string[] = []
  findImages([at('mixed')], (line) => lines.push(line))
  assert.is(lines.length, 1)
  assert.match(
    lines[0] ?? '',
    /passed over in .*mixed: 1 of other formats; .*1\.bmp is a file of BMP, which is not read/,
  )
  await refuses(() => found('bitmaps'), `--images ${at('bitmaps')}: ${at('bitmaps', '1.bmp')}`, ...remedy)
  await refuses(() => found('bitmaps/1*'), at('bitmaps', '1.bmp'), ...remedy)
  await refuses(() => found('mixed/2.jpg', 'bitmaps/1.bmp'), `--images: ${at('bitmaps', '1.bmp')}`, ...remedy)
  await refuses(() => readImage(at('bitmaps/1.bmp')), at('bitmaps', '1.bmp'))
  writeFileSync(at('bitmaps/1.bmp'), `BM${'\0'.repeat(200)}`)
  await refuses(() => readImage(at('bitmaps/1.bmp')), at('bitmaps', '1.bmp'), ...remedy)

  const suffixes = { image_suffix: '', label_suffix: '' }
  assert.equal(pairFolders(folder, { images: 'mixed', ...suffixes }), [{ image: 'mixed/2.jpg', label: null }])
  await refuses(() => pairFolders(folder, { images: 'bitmaps', ...suffixes }), 'no images in', '1.bmp', ...remedy)
  await refuses(() => pairFolders(folder, { images: 'mixed', labels: 'gifs', ...suffixes }), 'PNG', '1.gif')
})

test.run()
