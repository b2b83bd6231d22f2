// Mean and sum of squared deviations of every PARTS-th row, per channel: x [R, C] → mean, deviation [parts, C].
// Sums are taken relative to the part's first element, so that a large common offset cancels nothing.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;

struct Uniforms { rows: u32, channels: u32, parts: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> deviation: array<f32>;

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let c = id.x;
  let part = id.y;
  if (c >= u.channels || part >= u.parts) {
    return;
  }
  let shift = f32(x[part * u.channels + c]);
  var total = 0f;
  var squares = 0f;
  var count = 0f;
  for (var row = part; row < u.rows; row += u.parts) {
    let d = f32(x[row * u.channels + c]) - shift;
    total += d;
    squares += d * d;
    count += 1f;
  }
  let offset = total / count;
  mean[part * u.channels + c] = shift + offset;
  deviation[part * u.channels + c] = max(squares - total * offset, 0f);
}
