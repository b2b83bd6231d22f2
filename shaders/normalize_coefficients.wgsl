// Coefficients [R, 64] → (x − mean) / deviation per channel, four at a time.
alias T = vec4f;
alias U = vec4f;

struct Uniforms {
  count: u32, grid_x: u32, unused_a: u32, unused_b: u32,
  mean: array<vec4f, 16>,
  deviation: array<vec4f, 16>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * u.grid_x) * 64u + lane;
  if (i >= u.count) {
    return;
  }
  let channel = i & 15u;
  y[i] = U((vec4f(x[i]) - u.mean[channel]) / u.deviation[channel]);
}
