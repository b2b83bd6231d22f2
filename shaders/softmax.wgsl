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
  let channels = u.channels;
  let start = row * channels;
  let end = start + channels;
  let first = f32(x[start]);
  // Finite, so that a difference from it is a number even where logits are −∞.
  var largest = max(first, -3.4e38f);
  var total = exp(first - largest);
  for (var i = start + 1u; i < end; i++) {
    let value = f32(x[i]);
    // One exponential serves both: a new largest value scales the sum down, another one adds to it.
    let smaller = exp(-abs(value - largest));
    total = select(total + smaller, fma(total, smaller, 1f), value > largest);
    largest = max(largest, value);
  }
  let share = 1f / total;
  for (var i = start; i < end; i++) {
    y[i] = exp(f32(x[i]) - largest) * share;
  }
}
