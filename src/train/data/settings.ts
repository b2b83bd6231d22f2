import type { Rgb } from './classes.js'

/**
 * Which way up images are read: turned as their EXIF orientation says, as viewers show them (`apply`), or as their pixels
 * are stored.
 */
export type ExifOrientation = 'apply' | 'stored'

/** What reading labels takes from the configuration, under its names there. */
export interface LabelSettings {
  readonly nclass: number
  readonly ignore_index: number
  /** Label files hold 0 for "ignore" and 1 to nclass for the classes. */
  readonly reduce_zero_label: boolean
  readonly palette?: readonly Rgb[] | undefined
  /** Class of each value; a colour is written '#rrggbb'. */
  readonly label_map?: Readonly<Record<string, number>> | undefined
  /** Default: `apply`. */
  readonly exif_orientation?: ExifOrientation | undefined
}

/** What loading batches takes from the configuration, under its names there. */
export interface LoaderSettings extends LabelSettings {
  readonly method: string
  readonly batch_size: number
  readonly crop_size: number
  readonly workers?: number | undefined
}

/** Images and labels in two folders, paired by their names without ending, in place of a list. */
export interface Folders {
  /** Relative to the data folder, like `labels`. */
  readonly images: string
  readonly labels?: string | undefined
  /** What the names of the images, and of the labels, have behind the part that both share. */
  readonly image_suffix: string
  readonly label_suffix: string
}
