// Largest softmax probability and its class, the lowest on ties: x [R, C] → confidence, label [R].
alias T = f32;

struct Uniforms { rows: u32, channels: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> confidence: array<f32>;
@group(0) @binding(3) var<storage, read_write> label: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * u.grid_x) * 64u + lane;
  if (row >= u.rows) {
    return;
  }
  let channels = u.channels;
  let start = row * channels;
  let first = f32(x[start]);
  // Finite, so that a difference from it is a number even where logits are −∞.
  var largest = max(first, -3.4e38f);
  var total = exp(first - largest);
  var best = 0u;
  for (var c = 1u; c < channels; c++) {
    let value = f32(x[start + c]);
    let larger = value > largest;
    // One exponential serves both: a new largest value scales the sum down, another one adds to it.
    let smaller = exp(-abs(value - largest));
    total = select(total + smaller, fma(total, smaller, 1f), larger);
    largest = max(largest, value);
    best = select(best, c, larger);
  }
  confidence[row] = 1f / total;
  label[row] = best;
}
