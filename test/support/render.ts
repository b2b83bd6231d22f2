import sharp from 'sharp'

/** An SVG file as another program draws it. */
export interface Rendering {
  readonly width: number
  readonly height: number
  /** The colour at a place. */
  readonly at: (x: number, y: number) => [red: number, green: number, blue: number]
  /** Number of pixels of exactly this colour. */
  readonly count: (color: readonly number[]) => number
}

/** Draws an SVG file with librsvg. Throws where it is not well-formed. */
export async function render(svg: string): Promise<Rendering> {
  // Where the decoders of data sets are chosen, this one is not among them.
  sharp.unblock({ operation: ['VipsForeignLoadSvg'] })
  const { data, info } = await sharp(Buffer.from(svg)).removeAlpha().raw().toBuffer({ resolveWithObject: true })
  const { width, height } = info
  const at = (x: number, y: number): [number, number, number] => {
    const [red = 0, green = 0, blue = 0] = data.subarray(3 * (y * width + x))
    return [red, green, blue]
  }
  const count = (color: readonly number[]) => {
    let pixels = 0
    for (let i = 0; i < data.length; i += 3) if (color.every((value, c) => data[i + c] === value)) pixels++
    return pixels
  }
  return { width, height, at, count }
}
