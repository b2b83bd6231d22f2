// Gradient of cross_entropy.wgsl: (softmax − one-hot target) times the gradient of each row's loss.
alias T = f32;
alias G = f32;
alias U = f32;

struct Uniforms { rows: u32, channels: u32, ignore_index: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<T>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read> dloss: array<G>;
@group(0) @binding(4) var<storage, read> largest_logit: array<f32>;
@group(0) @binding(5) var<storage, read> total_exp: array<f32>;
@group(0) @binding(6) var<storage, read_write> dlogits: array<U>;

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
  let ignored = wanted == u.ignore_index || wanted >= channels;
  let at = start + wanted;
  let largest = largest_logit[row];
  let weight = f32(dloss[row]);
  let share = weight / total_exp[row];
  for (var i = start; i < end; i++) {
    let gradient = exp(f32(logits[i]) - largest) * share - select(0f, weight, i == at);
    // A selection, since the gradient of a mean over no rows at all is not a number, which 0 would not hide.
    dlogits[i] = U(select(gradient, 0f, ignored));
  }
}
