// Joins the parts of batchnorm_partial.wgsl by Chan's formula, and updates the running statistics as PyTorch does:
// the running variance takes the unbiased variance, the normalisation the biased one.
const LANES: u32 = 8;

struct Uniforms { rows: u32, channels: u32, parts: u32, momentum: f32, eps: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> part_mean: array<f32>;
@group(0) @binding(2) var<storage, read> part_deviation: array<f32>;
@group(0) @binding(3) var<storage, read_write> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> inverse_deviation: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> running_variance: array<f32>;

/// Number of elements, mean, and sum of squared deviations from it.
struct Moments { count: f32, mean: f32, deviation: f32 }

fn join(a: Moments, b: Moments) -> Moments {
  let count = a.count + b.count;
  if (count == 0f) {
    return a;
  }
  let difference = b.mean - a.mean;
  let share = b.count / count;
  return Moments(
    count,
    a.mean + difference * share,
    a.deviation + b.deviation + difference * difference * a.count * share,
  );
}

var<workgroup> joined: array<Moments, 8 * LANES>;

@compute @workgroup_size(8, LANES)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let c = id.x;
  var moments = Moments(0f, 0f, 0f);
  if (c < u.channels) {
    for (var part = local.y; part < u.parts; part += LANES) {
      let count = f32((u.rows - part + u.parts - 1u) / u.parts);
      let at = part * u.channels + c;
      moments = join(moments, Moments(count, part_mean[at], part_deviation[at]));
    }
  }
  joined[local.y * 8u + local.x] = moments;
  workgroupBarrier();
  if (local.y != 0u || c >= u.channels) {
    return;
  }
  for (var lane = 1u; lane < LANES; lane++) {
    moments = join(moments, joined[lane * 8u + local.x]);
  }
  let variance = moments.deviation / moments.count;
  mean[c] = moments.mean;
  inverse_deviation[c] = 1f / sqrt(variance + u.eps);
  running_mean[c] += u.momentum * (moments.mean - running_mean[c]);
  let unbiased = moments.deviation / max(moments.count - 1f, 1f);
  running_variance[c] += u.momentum * (unbiased - running_variance[c]);
}
