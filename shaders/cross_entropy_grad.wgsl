// Gradient of cross_entropy.wgsl: (softmax − one-hot target) times the gradient of each row's loss.
alias T = f32;
alias G = f32;
alias U = f32;
const Y_BINDING = 6u;
const VALUES = 1u;

struct Shape { rows: u32, out_c: u32, ignore_index: u32, grid_x: u32, out_h: u32, out_w: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> logits: array<T>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read> dloss: array<G>;
@group(0) @binding(4) var<storage, read> largest_logit: array<f32>;
@group(0) @binding(5) var<storage, read> total_exp: array<f32>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

fn load_target(row: u32) -> u32 {
  return targets[row];
}

// What `store` needs of a class.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = U(v);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * s.grid_x) * 64u + lane;
  if (row >= s.rows) {
    return;
  }
  let channels = s.out_c;
  let wanted = load_target(row);
  let start = row * channels;
  let ignored = wanted == s.ignore_index || wanted >= channels;
  let largest = largest_logit[row];
  let weight = f32(dloss[row]);
  let share = weight / total_exp[row];
  for (var n = 0u; n < channels; n++) {
    let gradient = exp(f32(logits[start + n]) - largest) * share - select(0f, weight, n == wanted);
    // A selection, since the gradient of a mean over no rows at all is not a number, which 0 would not hide.
    store(row, n, select(gradient, 0f, ignored), channel_values(n));
  }
}
