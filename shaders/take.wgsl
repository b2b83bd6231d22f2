// Whole samples of x, by their indices. Bytes become words.
const BYTES: bool = false;
alias T = f32;
alias U = f32;

struct Uniforms { count: u32, sample: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<U>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * u.grid_x) * 64 + lane;
  if (i >= u.count) {
    return;
  }
  let place = index[i / u.sample] * u.sample + i % u.sample;
  if (BYTES) {
    y[i] = U((u32(x[place / 4]) >> ((place % 4) * 8)) & 255);
  } else {
    y[i] = U(x[place]);
  }
}
