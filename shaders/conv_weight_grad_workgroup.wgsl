// Weight gradient of a convolution, as an implicit GEMM tiled in workgroup memory.
// A workgroup of TY x TX threads owns 4 * TY * R rows (tap and input channel, the channels filled up to a multiple of 4)
// by 4 * TX * C output channels and sums over a slice of the pixels, 16 at a time; a thread owns 4 * R by 4 * C in
// registers.
const TX = 8u;
const TY = 8u;
const R = 2u;
const C = 2u;
alias A = f32;
alias B = f32;
alias U = f32;
const Y_BINDING = 3u;
const VALUES = 1u;

// x [n, in_h, in_w, in_c], dy [n, out_h, out_w, out_c], y = dw [slices, kh, kw, in_c, out_c].
// Grid: tiles of rows, tiles of channels, slices, each of which sums as many of the pixels that meet the tile's taps.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, slices: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<A>;
@group(0) @binding(2) var<storage, read> dy: array<B>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

// Vectors of four elements that a thread loads of each tile.
const A_LOADS = 16 * R / TX;
const B_LOADS = 16 * C / TY;
var<workgroup> tile_a: array<vec4f, 16 * TY * R>;
var<workgroup> tile_b: array<vec4f, 16 * TX * C>;

// Elements i to i + 3, of which the first `count` exist. Where all rows are whole multiples of 4, the loader replaces
// the alias by a vector and the body by `return vec4f(x[i / 4]);`.
fn load_a(i: u32, count: u32) -> vec4f {
  let in = vec4u(0, 1, 2, 3) < vec4u(count);
  return select(vec4f(), vec4f(f32(x[i]), f32(x[i + 1]), f32(x[i + 2]), f32(x[i + 3])), in);
}

fn load_b(i: u32, count: u32) -> vec4f {
  let in = vec4u(0, 1, 2, 3) < vec4u(count);
  return select(vec4f(), vec4f(f32(dy[i]), f32(dy[i + 1]), f32(dy[i + 2]), f32(dy[i + 3])), in);
}

// What `store` needs of an output channel.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(row: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[row * s.out_c + n] = U(v);
}

// The first of `places` windows that reach the map with a tap at `offset`, and the one after the last.
fn reaching(offset: i32, stride: u32, size: u32, places: u32) -> vec2u {
  let last = (i32(size + stride) - 1 - offset) / i32(stride);
  return vec2u((u32(max(-offset, 0)) + stride - 1) / stride, u32(clamp(last, 0, i32(places))));
}

fn tap_offset(tap: u32) -> vec2i {
  let ky = tap / s.kw;
  return vec2i(vec2u(ky * s.dil_h, (tap - ky * s.kw) * s.dil_w)) - vec2i(vec2u(s.pad_h, s.pad_w));
}

// A place (image, y, x) of the box, a step further.
fn moved(at: vec3u, step: vec3u, width: u32, height: u32) -> vec3u {
  var next = at + step;
  let end_x = next.z >= width;
  next.z -= select(0, width, end_x);
  next.y += u32(end_x);
  let end_y = next.y >= height;
  next.y -= select(0, height, end_y);
  next.x += u32(end_y);
  return next;
}

@compute @workgroup_size(TX * TY)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let groups = (s.in_c + 3) / 4;
  let total = s.kh * s.kw * groups;
  let m0 = wg.x * TY * R;
  let n0 = wg.y * 4 * TX * C;

  // The pixels that any of the tile's taps reads lie in a box of the map.
  var low = vec2u(s.out_h, s.out_w);
  var high = vec2u(0);
  for (var tap = m0 / groups; tap <= (min(m0 + TY * R, total) - 1) / groups; tap++) {
    let offset = tap_offset(tap);
    let y_range = reaching(offset.x, s.stride_h, s.in_h, s.out_h);
    let x_range = reaching(offset.y, s.stride_w, s.in_w, s.out_w);
    if (y_range.x < y_range.y && x_range.x < x_range.y) {
      low = min(low, vec2u(y_range.x, x_range.x));
      high = max(high, vec2u(y_range.y, x_range.y));
    }
  }
  high = max(high, low);
  let height = high.x - low.x;
  let width = high.y - low.y;
  let pixels = s.n * height * width;
  let chunk = (pixels + s.slices - 1) / s.slices;
  let begin = min(wg.z * chunk, pixels);
  let end = min(begin + chunk, pixels);

  // What this thread loads of the rows is of one tap and four channels, and it moves 16 pixels ahead each time.
  let row = m0 + id % (TY * R);
  let row_tap = row / groups;
  let row_channel = (row - row_tap * groups) * 4;
  let offset = tap_offset(row_tap);
  let step = vec3u(16 / max(width, 1) / max(height, 1), 16 / max(width, 1) % max(height, 1), 16 % max(width, 1));
  var at_a: array<vec3u, A_LOADS>;
  for (var i = 0u; i < A_LOADS; i++) {
    let p = begin + id / (TY * R) + TX / R * i;
    at_a[i] = vec3u(p / max(width, 1) / max(height, 1), p / max(width, 1) % max(height, 1), p % max(width, 1));
  }
  var at_b: array<vec3u, B_LOADS>;
  for (var i = 0u; i < B_LOADS; i++) {
    let p = begin + id / (TX * C) + TY / C * i;
    at_b[i] = vec3u(p / max(width, 1) / max(height, 1), p / max(width, 1) % max(height, 1), p % max(width, 1));
  }

  let tx = id % TX;
  let ty = id / TX;
  var acc: array<array<vec4f, C>, 4 * R>;
  for (var k = begin; k < end; k += 16) {
    for (var i = 0u; i < A_LOADS; i++) {
      let y = (at_a[i].y + low.x) * s.stride_h;
      let x = (at_a[i].z + low.y) * s.stride_w;
      let iy = i32(y) + offset.x;
      let ix = i32(x) + offset.y;
      let k_a = id / (TY * R) + TX / R * i;
      var v = vec4f();
      if (row < total && k + k_a < end && iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w)) {
        let pixel = (at_a[i].x * s.in_h + u32(iy)) * s.in_w + u32(ix);
        v = load_a(pixel * s.in_c + row_channel, s.in_c - row_channel);
      }
      tile_a[k_a * TY * R + id % (TY * R)] = v;
      at_a[i] = moved(at_a[i], step, width, height);
    }
    for (var i = 0u; i < B_LOADS; i++) {
      let n = n0 + id % (TX * C) * 4;
      let k_b = id / (TX * C) + TY / C * i;
      var v = vec4f();
      if (k + k_b < end && n < s.out_c) {
        let pixel = (at_b[i].x * s.out_h + at_b[i].y + low.x) * s.out_w + at_b[i].z + low.y;
        v = load_b(pixel * s.out_c + n, s.out_c - n);
      }
      tile_b[k_b * TX * C + id % (TX * C)] = v;
      at_b[i] = moved(at_b[i], step, width, height);
    }
    workgroupBarrier();

    for (var q = 0u; q < 16; q++) {
      for (var r = 0u; r < R; r++) {
        let v = tile_a[q * TY * R + ty + TY * r];
        for (var j = 0u; j < C; j++) {
          let b = tile_b[q * TX * C + tx + TX * j];
          for (var i = 0u; i < 4; i++) {
            acc[4 * r + i][j] += v[i] * b;
          }
        }
      }
    }
    workgroupBarrier();
  }

  for (var r = 0u; r < R; r++) {
    let m = m0 + ty + TY * r;
    let tap = m / groups;
    let c = (m - tap * groups) * 4;
    for (var i = 0u; i < 4; i++) {
      if (m < total && c + i < s.in_c) {
        for (var j = 0u; j < C; j++) {
          for (var h = 0u; h < 4; h++) {
            let n = n0 + (tx + TX * j) * 4 + h;
            if (n < s.out_c) {
              store((wg.z * s.kh * s.kw + tap) * s.in_c + c + i, n, acc[4 * r + i][j][h], channel_values(n));
            }
          }
        }
      }
    }
  }
}
