import type { SegFormerConfig } from '#dist/models/segformer.js'

type Four = readonly [number, number, number, number]

/** How the recorded files describe a SegFormer. */
export interface RecordedSegFormer {
  readonly embed: number
  readonly heads: Four
  readonly layers: Four
  readonly sr: Four
  readonly mlp_ratio: number
  readonly path_rate: number
  readonly head_channels: number
  readonly head_drop: number
  readonly nclass: number
}

/** The same under the keys of a configuration: a stage has `embed` channels for each head. */
export const segFormerConfig = (recorded: RecordedSegFormer): SegFormerConfig => ({
  embed_dims: recorded.heads.map((heads) => recorded.embed * heads) as unknown as Four,
  depths: recorded.layers,
  num_heads: recorded.heads,
  sr_ratios: recorded.sr,
  mlp_ratio: recorded.mlp_ratio,
  drop_path_rate: recorded.path_rate,
  head_channels: recorded.head_channels,
  head_dropout: recorded.head_drop,
  nclass: recorded.nclass,
})

/** What the names of the noise of each block begin with, in the order of the blocks. */
export const blockNames = (depths: readonly number[]): string[] =>
  depths.flatMap((depth, stage) => Array.from({ length: depth }, (_, block) => `layers.${stage}.1.${block}`))
