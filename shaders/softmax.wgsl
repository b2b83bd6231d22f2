// Softmax over the last axis: x [R, C] → y [R, C].
alias T = f32;

struct Uniforms { rows: u32, channels: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * u.grid_x) * 64u + lane;
  if (row >= u.rows) {
    return;
  }
  let start = row * u.channels;
  var largest = f32(x[start]);
  for (var c = 1u; c < u.channels; c++) {
    largest = max(largest, f32(x[start + c]));
  }
  var total = 0f;
  for (var c = 0u; c < u.channels; c++) {
    let value = exp(f32(x[start + c]) - largest);
    y[start + c] = value;
    total += value;
  }
  for (var c = 0u; c < u.channels; c++) {
    y[start + c] /= total;
  }
}
