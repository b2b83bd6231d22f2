// How state_dicts of other programs name the layers of a Mix Transformer.
import type { BackboneNames } from './segmentation.js'

type Rules = readonly (readonly [theirs: RegExp, ours: string | ((...found: string[]) => string)])[]

/** The name by the first rule whose pattern it begins with; others stay. */
function translated(name: string, rules: Rules): string {
  for (const [theirs, ours] of rules) {
    if (theirs.test(name)) return name.replace(theirs, ours as string)
  }
  return name
}

/** Stages are counted from 1 on there. */
const stage = (number = '1'): string => String(Number(number) - 1)

const huggingFace: Rules = [
  [/^patch_embeddings\.(\d+)\.proj\./, 'layers.$1.0.projection.'],
  [/^patch_embeddings\.(\d+)\.layer_norm\./, 'layers.$1.0.norm.'],
  [/^block\.(\d+)\.(\d+)\.layer_norm_([12])\./, 'layers.$1.1.$2.norm$3.'],
  [/^block\.(\d+)\.(\d+)\.attention\.self\.query\./, 'layers.$1.1.$2.attn.attn.in_proj_'],
  [/^block\.(\d+)\.(\d+)\.attention\.output\.dense\./, 'layers.$1.1.$2.attn.attn.out_proj.'],
  [/^block\.(\d+)\.(\d+)\.attention\.self\.sr\./, 'layers.$1.1.$2.attn.sr.'],
  [/^block\.(\d+)\.(\d+)\.attention\.self\.layer_norm\./, 'layers.$1.1.$2.attn.norm.'],
  [/^block\.(\d+)\.(\d+)\.mlp\.dense1\./, 'layers.$1.1.$2.ffn.layers.0.'],
  [/^block\.(\d+)\.(\d+)\.mlp\.dwconv\.dwconv\./, 'layers.$1.1.$2.ffn.layers.1.'],
  [/^block\.(\d+)\.(\d+)\.mlp\.dense2\./, 'layers.$1.1.$2.ffn.layers.4.'],
  [/^layer_norm\.(\d+)\./, 'layers.$1.2.'],
]

const block = (rest: string) => (_: string, number: string, index: string) =>
  `layers.${stage(number)}.1.${index}.${rest}`

const original: Rules = [
  [/^patch_embed([1-4])\.proj\./, (_, number) => `layers.${stage(number)}.0.projection.`],
  [/^patch_embed([1-4])\.norm\./, (_, number) => `layers.${stage(number)}.0.norm.`],
  [/^block([1-4])\.(\d+)\.norm1\./, block('norm1.')],
  [/^block([1-4])\.(\d+)\.norm2\./, block('norm2.')],
  [/^block([1-4])\.(\d+)\.attn\.q\./, block('attn.attn.in_proj_')],
  [/^block([1-4])\.(\d+)\.attn\.proj\./, block('attn.attn.out_proj.')],
  [/^block([1-4])\.(\d+)\.attn\.sr\./, block('attn.sr.')],
  [/^block([1-4])\.(\d+)\.attn\.norm\./, block('attn.norm.')],
  [/^block([1-4])\.(\d+)\.mlp\.fc1\./, block('ffn.layers.0.')],
  [/^block([1-4])\.(\d+)\.mlp\.dwconv\.dwconv\./, block('ffn.layers.1.')],
  [/^block([1-4])\.(\d+)\.mlp\.fc2\./, block('ffn.layers.4.')],
  [/^norm([1-4])\./, (_, number) => `layers.${stage(number)}.2.`],
]

export const mitNames: readonly BackboneNames[] = [
  // mmsegmentation, whose head has another name in its whole models.
  { landmark: 'layers.0.0.projection.weight', synonyms: [], outside: [['decode_head.', 'head.']] },
  {
    landmark: 'patch_embeddings.0.proj.weight',
    synonyms: [],
    program: 'Hugging Face',
    translate: (name) => translated(name, huggingFace),
    joined: [['.attention.self.query.', '.attention.self.key.', '.attention.self.value.']],
    convolutions: ['.mlp.dense1.weight', '.mlp.dense2.weight'],
  },
  {
    landmark: 'patch_embed1.proj.weight',
    synonyms: [],
    outside: [['decode_head.', 'head.']],
    program: "SegFormer's own code",
    translate: (name) => translated(name, original),
    joined: [['.attn.q.', '.attn.kv.']],
    convolutions: ['.mlp.fc1.weight', '.mlp.fc2.weight'],
  },
]
