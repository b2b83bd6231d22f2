// The pixels of a texture of bytes, row by row → RGB bytes [H, W, 3], four in a word; those behind the last are 0.
@group(0) @binding(1) var source: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> bytes: array<u32>;

fn byte(i: u32) -> u32 {
  let size = textureDimensions(source);
  let pixel = i / 3;
  if (pixel >= size.x * size.y) {
    return 0;
  }
  let color = textureLoad(source, vec2u(pixel % size.x, pixel / size.x), 0);
  return u32(round(color[i % 3] * 255));
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let word = (group.x + group.y * groups.x) * 64 + lane;
  if (word >= arrayLength(&bytes)) {
    return;
  }
  let i = 4 * word;
  bytes[word] = byte(i) | (byte(i + 1) << 8) | (byte(i + 2) << 16) | (byte(i + 3) << 24);
}
