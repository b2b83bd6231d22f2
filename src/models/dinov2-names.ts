// How state_dicts of other programs name the layers of DINOv2.
import type { BackboneNames } from './segmentation.js'

const huggingFace: readonly (readonly [theirs: RegExp, ours: string])[] = [
  [/^embeddings\.(cls_token|mask_token)$/, '$1'],
  [/^embeddings\.position_embeddings$/, 'pos_embed'],
  [/^embeddings\.patch_embeddings\.projection\./, 'patch_embed.proj.'],
  [/^encoder\.layer\.(\d+)\.attention\.attention\.query\./, 'blocks.$1.attn.qkv.'],
  [/^encoder\.layer\.(\d+)\.attention\.output\.dense\./, 'blocks.$1.attn.proj.'],
  [/^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$/, 'blocks.$1.ls$2.gamma'],
  [/^encoder\.layer\.(\d+)\.(norm[12]|mlp\.fc[12])\./, 'blocks.$1.$2.'],
  [/^layernorm\./, 'norm.'],
]

export const dinoV2Names: readonly BackboneNames[] = [
  { landmark: 'blocks.0.ls1.gamma', synonyms: [] },
  {
    landmark: 'embeddings.patch_embeddings.projection.weight',
    synonyms: [],
    program: 'Hugging Face',
    translate: (name) => {
      const [theirs, ours] = huggingFace.find(([pattern]) => pattern.test(name)) ?? []
      return theirs && ours ? name.replace(theirs, ours) : name
    },
    joined: [['.attention.attention.query.', '.attention.attention.key.', '.attention.attention.value.']],
  },
]
