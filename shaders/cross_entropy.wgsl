// Cross entropy per row: logits [R, C], target [R] → loss, probability of the target, and for the gradient the largest
// logit and the sum of the exponentials relative to it, all [R]. Rows whose target is `ignore` have loss 0 and
// probability 1.
alias T = f32;

struct Uniforms { rows: u32, channels: u32, ignore_index: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<T>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> probability: array<f32>;
@group(0) @binding(5) var<storage, read_write> largest_logit: array<f32>;
@group(0) @binding(6) var<storage, read_write> total_exp: array<f32>;

fn load_target(row: u32) -> u32 {
  return targets[row];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * u.grid_x) * 64u + lane;
  if (row >= u.rows) {
    return;
  }
  let channels = u.channels;
  let wanted = load_target(row);
  let start = row * channels;
  let end = start + channels;
  let first = f32(logits[start]);
  // Finite, so that a difference from it is a number even where logits are −∞.
  var largest = max(first, -3.4e38f);
  var total = exp(first - largest);
  for (var i = start + 1u; i < end; i++) {
    let value = f32(logits[i]);
    // One exponential serves both: a new largest value scales the sum down, another one adds to it.
    let smaller = exp(-abs(value - largest));
    total = select(total + smaller, fma(total, smaller, 1f), value > largest);
    largest = max(largest, value);
  }
  let ignored = wanted == u.ignore_index || wanted >= channels;
  let margin = f32(logits[select(start + wanted, start, ignored)]) - largest;
  loss[row] = select(log(total) - margin, 0f, ignored);
  probability[row] = select(exp(margin) / total, 1f, ignored);
  largest_logit[row] = largest;
  total_exp[row] = total;
}
