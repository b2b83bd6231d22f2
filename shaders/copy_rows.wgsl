// Copies rows of `chunk` elements from one pitch to another; what lies outside [low, high) of an output row is zero.
const PER_THREAD: u32 = 4;
alias T = f32;
alias U = f32;

struct Uniforms {
  count: u32, chunk: u32, low: u32, high: u32,
  x_pitch: u32, x_offset: u32, y_pitch: u32, y_offset: u32,
  grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  var i = (group.x + group.y * u.grid_x) * (64 * PER_THREAD) + lane;
  // One division, then steps of 64 elements, which cross few rows.
  var row = i / u.chunk;
  var k = i - row * u.chunk;
  for (var step = 0u; step < PER_THREAD && i < u.count; step++) {
    var value = U(0);
    if (k >= u.low && k < u.high) {
      value = U(x[row * u.x_pitch + u.x_offset + k - u.low]);
    }
    y[row * u.y_pitch + u.y_offset + k] = value;
    i += 64u;
    k += 64u;
    while (k >= u.chunk) {
      k -= u.chunk;
      row++;
    }
  }
}
