// Mean, 1 / standard deviation and running statistics per channel. HEIGHT threads of a workgroup share the rows of WIDTH
// channels and join what they found by Chan's formula. The running statistics are updated as PyTorch does: the running
// variance takes the unbiased variance, the normalisation the biased one.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;
alias V = f32;

struct Uniforms { rows: u32, channels: u32, parts: u32, per_part: u32, momentum: f32, eps: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> mean: array<V>;
@group(0) @binding(3) var<storage, read_write> inverse_deviation: array<V>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<V>;
@group(0) @binding(5) var<storage, read_write> running_variance: array<V>;

/// Number of elements, mean, and sum of squared deviations from it.
struct Moments { count: f32, mean: V, deviation: V }

fn join(a: Moments, b: Moments) -> Moments {
  let count = a.count + b.count;
  let difference = b.mean - a.mean;
  let share = select(0f, b.count / count, count > 0f);
  return Moments(
    count,
    a.mean + difference * share,
    a.deviation + b.deviation + difference * difference * (a.count * share),
  );
}

/// Of a stretch of rows of x [R, C]; sums are relative to its first row, so that a large common offset cancels nothing.
fn moments_of(part: u32, c: u32) -> Moments {
  let channels = u.channels;
  let first = part * u.per_part;
  let end = min(first + u.per_part, u.rows);
  var i = first * channels + c;
  let shift = V(x[i]);
  var total = V();
  var squares = V();
  for (var row = first; row < end; row++) {
    let d = V(x[i]) - shift;
    total += d;
    squares += d * d;
    i += channels;
  }
  let offset = total / f32(end - first);
  return Moments(f32(end - first), shift + offset, max(squares - total * offset, V()));
}

var<workgroup> joined: array<Moments, WIDTH * HEIGHT>;

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let c = id.x;
  var moments = Moments(0f, V(), V());
  if (c < u.channels) {
    for (var part = local.y; part < u.parts; part += HEIGHT) {
      moments = join(moments, moments_of(part, c));
    }
  }
  joined[local.y * WIDTH + local.x] = moments;
  workgroupBarrier();
  if (local.y != 0u || c >= u.channels) {
    return;
  }
  for (var y = 1u; y < HEIGHT; y++) {
    moments = join(moments, joined[y * WIDTH + local.x]);
  }
  mean[c] = moments.mean;
  inverse_deviation[c] = 1f / sqrt(moments.deviation / moments.count + u.eps);
  running_mean[c] += u.momentum * (moments.mean - running_mean[c]);
  let unbiased = moments.deviation / max(moments.count - 1f, 1f);
  running_variance[c] += u.momentum * (unbiased - running_variance[c]);
}
