import type { Rgb } from '../train/data/classes.js'

/** Class indices of the scenes' label maps. */
export const Class = { sky: 0, ground: 1, water: 2, tree: 3, house: 4, boat: 5 } as const

/** Names in the order of the class indices. */
export const classNames: readonly string[] = ['sky', 'ground', 'water', 'tree', 'house', 'boat']

/** Display colours in the order of the class indices: red, green, blue in 0..255. */
export const palette: readonly Rgb[] = [
  [168, 206, 240],
  [214, 190, 138],
  [58, 112, 188],
  [52, 138, 82],
  [208, 84, 70],
  [124, 70, 156],
]
