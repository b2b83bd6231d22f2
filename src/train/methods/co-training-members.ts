import { z } from 'zod'
import { backbones, chooseModel, inputOf, type ModelSpec, modelKeys } from '../../models/index.js'

/** Kinds of members, each with its usual backbone. */
const usualBackbones = { cnn: 'resnet50', dct: 'resnet50_dct', segformer: 'mit_b2' } as const

const kinds = Object.keys(usualBackbones) as (keyof typeof usualBackbones)[]

const rate = z.int().min(1).max(1000)

const memberKeys = z.strictObject({
  kind: z
    .enum(kinds)
    .describe(
      '`cnn`: DeepLabV3+ on RGB; `dct`: DeepLabV3+ without stem on DCT coefficients; `segformer`: SegFormer on RGB.',
    ),
  backbone: z
    .enum(backbones)
    .optional()
    .describe('Default: `resnet50` of `cnn`, `resnet50_dct` of `dct`, `mit_b2` of `segformer`.'),
  pretrained: z
    .string()
    .min(1)
    .optional()
    .describe('Weights that it starts from. Default: those of the key `pretrained`.'),
  replace_stride_with_dilation: z
    .tuple([z.boolean(), z.boolean(), z.boolean()])
    .optional()
    .describe('As the key of the same name. Default: that of the backbone.'),
  dilations: z
    .tuple([rate, rate, rate])
    .optional()
    .describe('As the key of the same name. Default: that of the backbone.'),
  model: modelKeys.optional().describe('As the section `model`, in place of what its backbone has.'),
})

export type Member = z.infer<typeof memberKeys>

/** A member of co-training: its kind alone, or its keys. */
export const memberKey = z.preprocess((value) => (typeof value === 'string' ? { kind: value } : value), memberKeys)

/** A member with the name that metrics and files have of it. */
export type NamedMember = Member & { readonly name: string }

/** Members by their kinds; of those of one kind the later ones have a number. */
export const namedMembers = (members: readonly Member[]): NamedMember[] =>
  members.map((member, i) => {
    const before = members.slice(0, i).filter(({ kind }) => kind === member.kind).length
    return { ...member, name: before === 0 ? member.kind : `${member.kind}${before + 1}` }
  })

const kindOf = (spec: ModelSpec): Member['kind'] => {
  if (inputOf(spec) === 'coefficients') return 'dct'
  return spec.architecture === 'segformer' ? 'segformer' : 'cnn'
}

/**
 * The model of a member.
 * @throws Error that names the member, where its keys do not fit its kind
 */
export function specOf({ name, kind, backbone = usualBackbones[kind], ...member }: NamedMember, nclass: number) {
  const { pretrained: _, ...choice } = member
  const spec = chooseModel({ ...choice, backbone, nclass })
  if (kindOf(spec) === kind) return spec
  throw new Error(
    `the member ${name} of 'members' has the backbone ${backbone}, which is one of the kind ${kindOf(spec)}: ` +
      'choose another backbone or kind',
  )
}
