// Mean and 1 / standard deviation of the rows of x [R, C], each by LANES neighbouring threads: → mean, inverse [R]. Twice
// over a row, which the second time lies in the cache: the squares of differences do not cancel as a difference of squares.
const LANES: u32 = 8;
alias T = f32;
alias V = f32;

struct Uniforms { rows: u32, channels: u32, per_channel: f32, eps: f32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> inverse: array<f32>;

var<workgroup> parts: array<f32, 64>;

/// The sum of what the lanes of a row hold.
fn sum_of_row(thread: u32, part: f32) -> f32 {
  if (LANES == 1u) {
    return part;
  }
  parts[thread] = part;
  let first = thread / LANES * LANES;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread - first < half) {
      parts[thread] += parts[thread + half];
    }
  }
  workgroupBarrier();
  let total = parts[first];
  workgroupBarrier();
  return total;
}

/// The sum of a pack's elements.
fn sum_of_pack(pack: V) -> f32 {
  return f32(pack);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * u.grid_x) * (64u / LANES) + thread / LANES;
  let lane = thread % LANES;
  let start = select(0u, row * u.channels, row < u.rows);
  let end = select(start, start + u.channels, row < u.rows);
  // Differences from a value of the row, so that a sum of what lies far from 0 keeps its digits.
  let near = V(x[start]);
  var sum = V();
  for (var i = start + lane; i < end; i += LANES) {
    sum += V(x[i]) - near;
  }
  let centre = sum_of_pack(near) / sum_of_pack(V(1f)) + sum_of_row(thread, sum_of_pack(sum)) * u.per_channel;
  var squares = V();
  for (var i = start + lane; i < end; i += LANES) {
    let difference = V(x[i]) - centre;
    squares += difference * difference;
  }
  let variance = sum_of_row(thread, sum_of_pack(squares)) * u.per_channel;
  if (lane == 0u && row < u.rows) {
    mean[row] = centre;
    inverse[row] = 1f / sqrt(variance + u.eps);
  }
}
