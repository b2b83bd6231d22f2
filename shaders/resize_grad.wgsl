// Gradient of a linear resize with align_corners along one axis: dy [M, Y, C] → dx [M, X, C]. A thread walks along the
// axis and gives each element of dy to the two elements of dx that it was between.
alias T = f32;

struct Uniforms {
  threads: u32, channels: u32, x_size: u32, y_size: u32, stretches: u32, per_stretch: u32, scale: f32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<T>;
@group(0) @binding(2) var<storage, read_write> dx: array<T>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (group.x + group.y * u.grid_x) * 64u + lane;
  if (thread >= u.threads) {
    return;
  }
  let channels = u.channels;
  let y_size = u.y_size;
  let scale = u.scale;
  let last = u.x_size - 1u;
  let place = thread / channels;
  let c = thread - place * channels;
  let line = place / u.stretches;
  let first = (place - line * u.stretches) * u.per_stretch;
  let end = min(first + u.per_stretch, u.x_size);

  var here = T();
  var to = 0u;
  if (first > 0u) {
    // What lies between the element before the stretch and the first of it. The division rounds: begin one earlier.
    to = min(u32(max(f32(first - 1u) / scale - 1f, 0f)), y_size);
    while (to < y_size) {
      let position = f32(to) * scale;
      let at = min(u32(position), last);
      if (at >= first) {
        break;
      }
      if (at + 1u == first) {
        here += (position - f32(at)) * dy[(line * y_size + to) * channels + c];
      }
      to++;
    }
  }
  var i = (line * y_size + to) * channels + c;
  var o = (line * u.x_size + first) * channels + c;
  for (var at = first; at < end; at++) {
    var next = T();
    while (to < y_size) {
      let position = f32(to) * scale;
      if (min(u32(position), last) != at) {
        break;
      }
      let fraction = position - f32(at);
      let value = dy[i];
      here += (1f - fraction) * value;
      next += fraction * value;
      i += channels;
      to++;
    }
    dx[o] = select(here, here + next, at == last);
    here = next;
    o += channels;
  }
}
