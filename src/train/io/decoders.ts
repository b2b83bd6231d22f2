import { isMainThread } from 'node:worker_threads'
import sharp from 'sharp'

// The content of a file chooses its decoder, whatever its name is: only decoders of pictures as data sets have them.
// All threads of a process share one list of decoders, so that a thread that set it again when it starts would take them
// away from the others for a moment.
if (isMainThread) {
  sharp.block({ operation: ['VipsForeignLoad'] })
  sharp.unblock({
    operation: ['Jpeg', 'Png', 'Webp', 'Tiff', 'Nsgif', 'Heif'].map((format) => `VipsForeignLoad${format}`),
  })
}
sharp.cache(false)
// Several pictures are decoded at a time instead.
sharp.concurrency(1)

/** Decodes pictures of strangers: with few decoders, and without a cache. The main thread imports this before others. */
export { sharp }
