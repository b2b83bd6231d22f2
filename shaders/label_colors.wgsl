// The color of each pixel's class. Labels [H, W], colors of RGBA bytes → a texture of that size.
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> colors: array<u32>;
@group(0) @binding(3) var target_texture: texture_storage_2d<rgba8unorm, write>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let size = textureDimensions(target_texture);
  let i = (group.x + group.y * groups.x) * 64 + lane;
  if (i >= size.x * size.y) {
    return;
  }
  textureStore(target_texture, vec2u(i % size.x, i / size.x), unpack4x8unorm(colors[labels[i]]));
}
