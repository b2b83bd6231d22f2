// Bicubic resize along one axis: x [M, X, C] → y [M, Y, C], or with GRADIENT from the gradient of y to that of x. Weights are
// those of Keys's kernel with a = -0.75; taps beyond the border are those at the border. A thread computes one element, or
// four neighbouring channels.
const GRADIENT = false;
alias T = f32;
alias U = f32;
alias V = f32;

struct Uniforms {
  threads: u32, channels: u32, x_size: u32, y_size: u32, ratio: f32, step: f32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> source: array<T>;
@group(0) @binding(2) var<storage, read_write> result: array<U>;

const A = -0.75f;

/// Of a tap less than 1 away.
fn near(d: f32) -> f32 {
  return ((A + 2f) * d - (A + 3f)) * d * d + 1f;
}

/// Of a tap between 1 and 2 away.
fn far(d: f32) -> f32 {
  return ((A * d - 5f * A) * d + 8f * A) * d - 4f * A;
}

/// Where an element of y lies among those of x.
fn place(at: u32) -> f32 {
  return (f32(at) + 0.5f) * u.ratio - 0.5f;
}

/// Weights of the four taps around a place, from the one before that at or before it.
fn weights(fraction: f32) -> vec4f {
  return vec4f(far(fraction + 1f), near(fraction), near(1f - fraction), far(2f - fraction));
}

/// The taps behind the first one of a place.
fn taps(first: i32) -> vec4i {
  return clamp(vec4i(first - 1, first, first + 1, first + 2), vec4i(0), vec4i(i32(u.x_size) - 1));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (group.x + group.y * u.grid_x) * 64u + lane;
  if (thread >= u.threads) {
    return;
  }
  let channels = u.channels;
  let written = select(u.y_size, u.x_size, GRADIENT);
  let row = thread / channels;
  let c = thread - row * channels;
  let line = row / written;
  let at = row - line * written;
  var sum = V();
  if (GRADIENT) {
    // Elements of y that may have a tap here: a few more, so that rounding leaves none out.
    let low = i32(floor((f32(at) - 1.5f) * u.step - 0.5f)) - 1;
    let high = i32(ceil((f32(at) + 2.5f) * u.step - 0.5f)) + 1;
    let first = u32(select(max(low, 0), 0, at == 0u));
    let end = select(u32(clamp(high + 1, 0, i32(u.y_size))), u.y_size, at + 1u == u.x_size);
    for (var k = first; k < end; k++) {
      let p = place(k);
      let base = floor(p);
      let here = vec4f(taps(i32(base)) == vec4i(i32(at)));
      sum += dot(weights(p - base), here) * V(source[(line * u.y_size + k) * channels + c]);
    }
  } else {
    let p = place(at);
    let base = floor(p);
    let w = weights(p - base);
    let read = taps(i32(base));
    for (var k = 0; k < 4; k++) {
      sum += w[k] * V(source[(line * u.x_size + u32(read[k])) * channels + c]);
    }
  }
  result[thread] = U(sum);
}
