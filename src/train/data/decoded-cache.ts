import type { Decoded } from './loader-worker.js'

/** Tells an image apart, with the label that is read beside it. */
export const imageKey = (image: string, label: string | null): string => `${image}\n${label ?? ''}`

/**
 * Decoded images in shared memory. It fills up and then stays as it is: as every epoch reads every image once, a fixed part
 * of them serves better than the most recent ones.
 */
export class DecodedCache {
  private readonly images = new Map<string, Decoded>()

  /** @param bytesLeft at most so many bytes are kept */
  constructor(private bytesLeft: number) {}

  /** Whether anything more may fit. */
  get hasRoom(): boolean {
    return this.bytesLeft > 0
  }

  get(key: string): Decoded | null {
    return this.images.get(key) ?? null
  }

  /** Keeps an image where it fits. */
  add(key: string, decoded: Decoded): void {
    const bytes = decoded.image.data.length + (decoded.label?.data.length ?? 0)
    if (this.images.has(key) || bytes > this.bytesLeft) return
    this.bytesLeft -= bytes
    this.images.set(key, decoded)
  }
}
