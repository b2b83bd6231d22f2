// Gradient of resize.wgsl along one axis: dy [M, Y, C] → dx [M, X, C]. A thread walks along the axis and gives each element of dy to the two elements of dx that it was between.
const HALF_PIXEL = false;
alias T = f32;
alias U = f32;
alias V = f32;

struct Uniforms {
  threads: u32, channels: u32, x_size: u32, y_size: u32, chunks: u32, per_chunk: u32, scale: f32, step: f32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<T>;
@group(0) @binding(2) var<storage, read_write> dx: array<U>;

/// The first element of dy that lies at or behind an element of dx. Which side of a border it is put on by rounding makes
/// no difference: the weights are continuous there.
fn first_reader(at: u32) -> u32 {
  // What lies before the first element of dx reads that alone.
  if (HALF_PIXEL && at > 0u) {
    return select(min(u32(ceil((f32(at) + 0.5f) * u.step - 0.5f)), u.y_size), u.y_size, at >= u.x_size);
  }
  return select(min(u32(ceil(f32(at) * u.step)), u.y_size), u.y_size, at >= u.x_size);
}

/// Where an element of dy lies among those of dx.
fn place(at: u32, scale: f32) -> f32 {
  if (HALF_PIXEL) {
    return max((f32(at) + 0.5f) * scale - 0.5f, 0f);
  }
  return f32(at) * scale;
}

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
  let part = thread / channels;
  let c = thread - part * channels;
  let line = part / u.chunks;
  let first = (part - line * u.chunks) * u.per_chunk;
  let end = min(first + u.per_chunk, u.x_size);

  var here = V();
  var to = first_reader(max(first, 1u) - 1u);
  var i = (line * y_size + to) * channels + c;
  if (first > 0u) {
    // What lies between the element before the chunk and the first of it.
    for (let stop = first_reader(first); to < stop; to++) {
      here += (place(to, scale) - f32(first - 1u)) * V(dy[i]);
      i += channels;
    }
  }
  var o = (line * u.x_size + first) * channels + c;
  for (var at = first; at < end; at++) {
    var next = V();
    for (let stop = first_reader(at + 1u); to < stop; to++) {
      let fraction = place(to, scale) - f32(at);
      let value = V(dy[i]);
      here += (1f - fraction) * value;
      next += fraction * value;
      i += channels;
    }
    dx[o] = U(select(here, here + next, at == last));
    here = next;
    o += channels;
  }
}
