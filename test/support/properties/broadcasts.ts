/** The ways of broadcasting that kernels index: see src/kernels/views.ts. */
export const views = ['full', 'scalar', 'channel', 'row', 'sample', 'sampleChannel'] as const

/** The shape that broadcasts to `space` in this way. */
export const viewed = (space: readonly number[], view: (typeof views)[number]): number[] => {
  const last = space.length - 1
  const kept = {
    full: () => true,
    scalar: () => false,
    channel: (axis: number) => axis === last,
    row: (axis: number) => axis !== last,
    sample: (axis: number) => axis === 0,
    sampleChannel: (axis: number) => axis === 0 || axis === last,
  }[view]
  return space.map((extent, axis) => (kept(axis) ? extent : 1))
}
