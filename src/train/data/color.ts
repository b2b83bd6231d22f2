// Changes of colours, in place. The bytes are those that Pillow 9 gives: integer arithmetic where Pillow has it, float32
// where it has floats.

import { blendLevel, blendLuma, meanLuma, turnHue } from './color-kernels.js'

/** Replaces each colour by its luma. */
export const grayscale = (pixels: Uint8Array): void => blendLuma(pixels, 0)

/** 0 gives black, 1 the same image. */
export const adjustBrightness = (pixels: Uint8Array, factor: number): void => blendLevel(pixels, 0, factor)

/** 0 gives the mean luma everywhere, 1 the same image. */
export const adjustContrast = (pixels: Uint8Array, factor: number): void =>
  blendLevel(pixels, Math.trunc(meanLuma(pixels) + 0.5), factor)

/** 0 gives the luma, 1 the same image. */
export const adjustSaturation = (pixels: Uint8Array, factor: number): void => blendLuma(pixels, factor)

/** Byte added to the hue for a factor of -0.5 to 0.5 of the circle. */
export const hueShift = (factor: number): number => Math.trunc(factor * 255) & 255

/** Turns the hue by `factor` (-0.5 to 0.5) of the circle. */
export const adjustHue = (pixels: Uint8Array, factor: number): void => turnHue(pixels, hueShift(factor))

/** [H, W, 4] -> [H, W, 3] */
export function cmykToRgb(pixels: Uint8Array): Uint8Array {
  const out = new Uint8Array((pixels.length / 4) * 3)
  for (let from = 0, at = 0; from < pixels.length; from += 4) {
    const light = 255 - (pixels[from + 3] as number)
    for (let c = 0; c < 3; c++, at++) {
      const product = (pixels[from + c] as number) * light + 128
      // The product divided by 255, rounded.
      out[at] = light - (((product >> 8) + product) >> 8)
    }
  }
  return out
}
