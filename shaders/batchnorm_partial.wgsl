// Mean and sum of squared deviations of `parts` stretches of rows, per channel: x [R, C] → moments [2 · parts + 1, C]. The
// last row is the channel's pivot, to which means are relative, as in batchnorm_statistics.wgsl.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
/// Rows whose sum is taken before it is added to the others, so that long sums round less.
const CHUNK: u32 = 32;
alias T = f32;
alias V = f32;

struct Uniforms { rows: u32, channels: u32, parts: u32, per_part: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> moments: array<V>;

/// Of `count` rows: their mean less the pivot, and the sum of squared deviations from the mean.
fn store(part: u32, c: u32, count: u32, pivot: V, mean: V, deviation: V) {
  let at = part * u.channels + c;
  moments[at] = mean;
  moments[u.parts * u.channels + at] = deviation;
  if (part == 0u) {
    moments[2u * u.parts * u.channels + c] = pivot;
  }
}

/// A value of the channel near its mean: the median of three, so that one that lies far off, such as a corner's, does no harm.
fn pivot_of(c: u32) -> V {
  let step = u.rows / 7u * u.channels;
  let a = V(x[c + step]);
  let b = V(x[c + 3u * step]);
  let d = V(x[c + 5u * step]);
  return max(min(a, b), min(max(a, b), d));
}

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let c = id.x;
  let part = id.y;
  let channels = u.channels;
  if (c >= channels || part >= u.parts) {
    return;
  }
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
  store(part, c, end - first, pivot, mean, max(squares - total * mean, V()));
}
