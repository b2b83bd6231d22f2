/** Parts of DeepLabV3+ whose activations can be computed again in the backward pass, and the scopes of their layers. */
const scopes = {
  stem: ['backbone.conv1', 'backbone.bn1'],
  layer1: ['backbone.layer1'],
  layer2: ['backbone.layer2'],
  layer3: ['backbone.layer3'],
  layer4: ['backbone.layer4'],
  head: ['head'],
  decoder: ['reduce', 'decoder', 'fuse', 'classifier'],
} as const satisfies Record<string, readonly string[]>

export type Stage = keyof typeof scopes

export const stages = Object.keys(scopes) as Stage[]

/** For `compile`'s `checkpoint`: the stage among the `chosen` ones that a scope belongs to. */
export const stageOf =
  (chosen: readonly Stage[]) =>
  (scope: string): Stage | undefined =>
    chosen.find((stage) => scopes[stage].some((path) => scope === path || scope.startsWith(`${path}.`)))
