// Gradient of cross_entropy.wgsl: (softmax − one-hot target) times the gradient of each row's loss.
alias T = f32;

struct Uniforms { rows: u32, channels: u32, ignore_index: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<T>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read> dloss: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<T>;

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
  let start = row * u.channels;
  if (wanted == u.ignore_index || wanted >= u.channels) {
    for (var c = 0u; c < u.channels; c++) {
      dlogits[start + c] = T(0);
    }
    return;
  }
  var largest = f32(logits[start]);
  for (var c = 1u; c < u.channels; c++) {
    largest = max(largest, f32(logits[start + c]));
  }
  var total = 0f;
  for (var c = 0u; c < u.channels; c++) {
    total += exp(f32(logits[start + c]) - largest);
  }
  let weight = dloss[row];
  for (var c = 0u; c < u.channels; c++) {
    let probability = exp(f32(logits[start + c]) - largest) / total;
    dlogits[start + c] = T(weight * (probability - select(0f, 1f, c == wanted)));
  }
}
