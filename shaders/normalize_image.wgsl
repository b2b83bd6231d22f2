// RGB bytes [R, 3], four in a word or a word each → (x / 255 − mean) / deviation, with ImageNet's statistics per channel.
const BYTES: bool = true;
alias U = f32;

struct Uniforms { count: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

const mean = vec3f(0.485, 0.456, 0.406);
const deviation = vec3f(0.229, 0.224, 0.225);

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let pixel = (group.x + group.y * u.grid_x) * 64u + lane;
  if (pixel >= u.count) {
    return;
  }
  for (var c = 0u; c < 3u; c++) {
    let i = pixel * 3u + c;
    let word = x[select(i, i >> 2u, BYTES)];
    let byte = f32(select(word, (word >> ((i & 3u) * 8u)) & 0xffu, BYTES));
    y[i] = U((byte / 255f - mean[c]) / deviation[c]);
  }
}
