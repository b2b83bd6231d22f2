import type { Image } from '#dist/train/data/pixels.js'

const [width, height] = [31, 23]

/** An image whose bytes after each operation are recorded: slopes and jumps of few to many values by channel. */
export const picture: Image = { data: new Uint8Array(3 * width * height), width, height }
for (let i = 0; i < width * height; i++) {
  const [x, y] = [i % width, Math.floor(i / width)]
  picture.data[3 * i] = 40 + ((x * x + 3 * y) % 160)
  picture.data[3 * i + 1] = (37 * x + 11 * y * y) % 256
  picture.data[3 * i + 2] = 100 + 10 * Math.floor(x / 8) + (y > 11 ? 90 : 0)
}
