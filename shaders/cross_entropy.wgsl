// Cross entropy per row: logits [R, C], target [R] → loss, probability of the target [R].
// Rows whose target is `ignore` have loss 0 and probability 1.
alias T = f32;

struct Uniforms { rows: u32, channels: u32, ignore_index: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<T>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> probability: array<f32>;

fn load_target(row: u32) -> u32 {
  return targets[row];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * u.grid_x) * 64u + lane;
  if (row >= u.rows) {
    return;
  }
  let wanted = load_target(row);
  if (wanted == u.ignore_index || wanted >= u.channels) {
    loss[row] = 0f;
    probability[row] = 1f;
    return;
  }
  let start = row * u.channels;
  var largest = f32(logits[start]);
  for (var c = 1u; c < u.channels; c++) {
    largest = max(largest, f32(logits[start + c]));
  }
  var total = 0f;
  for (var c = 0u; c < u.channels; c++) {
    total += exp(f32(logits[start + c]) - largest);
  }
  let margin = f32(logits[start + wanted]) - largest;
  loss[row] = log(total) - margin;
  probability[row] = exp(margin) / total;
}
