export type { DeviceSegmentation } from './device-program.js'
export type { FeatureProgress, FineTuneOptions, FineTuneProgress, LabeledPicture } from './fine-tune.js'
export type { ImageSource } from './image-source.js'
export type { Picture } from './picture.js'
export {
  type CallOptions,
  type CompileProgress,
  type ExportOptions,
  type LoadOptions,
  type Segmentation,
  Segmenter,
  type SegmentOptions,
} from './segmenter.js'
export type { BlobLike, CheckpointSource } from './source.js'
