// Mean and sum of squared deviations of PARTS stretches of rows, per channel: x [R, C] → moments [2, parts, C].
// Sums are taken relative to the stretch's first row, so that a large common offset cancels nothing.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;
alias V = f32;

struct Uniforms { rows: u32, channels: u32, parts: u32, per_part: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> moments: array<V>;

/// Of `count` rows: their mean and the sum of squared deviations from it.
fn store(part: u32, c: u32, count: u32, mean: V, deviation: V) {
  let at = part * u.channels + c;
  moments[at] = mean;
  moments[u.parts * u.channels + at] = deviation;
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
  store(part, c, end - first, shift + offset, max(squares - total * offset, V()));
}
