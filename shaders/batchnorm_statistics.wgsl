// Mean, 1 / standard deviation and running statistics per channel. HEIGHT threads of a workgroup share the rows of WIDTH
// channels and join what they found by Chan's formula. The running statistics are updated as PyTorch does: the running
// variance takes the unbiased variance, the normalisation the biased one. Until the end all values are
// relative to the channel's pivot, so that a large common offset cancels nothing.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
/// Rows whose sum is taken before it is added to the others, so that long sums round less.
const CHUNK: u32 = 32;
alias T = f32;
alias V = f32;

struct Uniforms { rows: u32, channels: u32, parts: u32, per_part: u32, momentum: f32, eps: f32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> mean: array<V>;
@group(0) @binding(3) var<storage, read_write> inverse_deviation: array<V>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<V>;
@group(0) @binding(5) var<storage, read_write> running_variance: array<V>;

/// Number of elements, mean less the pivot, and sum of squared deviations from the mean.
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

/// A value of the channel near its mean: the median of three, so that one that lies far off, such as a corner's, does no harm.
fn pivot_of(c: u32) -> V {
  let step = u.rows / 7u * u.channels;
  let a = V(x[c + step]);
  let b = V(x[c + 3u * step]);
  let d = V(x[c + 5u * step]);
  return max(min(a, b), min(max(a, b), d));
}

/// Of a stretch of rows of x [R, C].
fn moments_of(part: u32, c: u32) -> Moments {
  let channels = u.channels;
  let first = part * u.per_part;
  let end = min(first + u.per_part, u.rows);
  var i = first * channels + c;
  let pivot = pivot_of(c);
  var total = V();
  var squares = V();
  for (var row = first; row < end;) {
    let stop = min(row + CHUNK, end);
    var chunk_total = V();
    var chunk_squares = V();
    for (; row + 1u < stop; row += 2u) {
      let a = V(x[i]) - pivot;
      let b = V(x[i + channels]) - pivot;
      chunk_total += a + b;
      chunk_squares += a * a + b * b;
      i += 2u * channels;
    }
    if (row < stop) {
      let d = V(x[i]) - pivot;
      chunk_total += d;
      chunk_squares += d * d;
      i += channels;
      row++;
    }
    total += chunk_total;
    squares += chunk_squares;
  }
  let mean = total / f32(end - first);
  return Moments(f32(end - first), mean, max(squares - total * mean, V()));
}

/// What becomes of a channel's moments and mean.
fn finish(c: u32, average: V, moments: Moments) {
  mean[c] = average;
  inverse_deviation[c] = 1f / sqrt(moments.deviation / moments.count + u.eps);
  running_mean[c] += u.momentum * (average - running_mean[c]);
  let unbiased = moments.deviation / max(moments.count - 1f, 1f);
  running_variance[c] += u.momentum * (unbiased - running_variance[c]);
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
  if (HEIGHT > 1u) {
    joined[local.y * WIDTH + local.x] = moments;
    workgroupBarrier();
  }
  if (local.y != 0u || c >= u.channels) {
    return;
  }
  for (var y = 1u; y < HEIGHT; y++) {
    moments = join(moments, joined[y * WIDTH + local.x]);
  }
  finish(c, pivot_of(c) + moments.mean, moments);
}
