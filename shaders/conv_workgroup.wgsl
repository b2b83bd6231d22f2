// Convolution, its input gradient and the matrix product, as an implicit GEMM tiled in workgroup memory.
// A workgroup of TY x TX threads owns TY * R pixels by 4 * TX * C output channels and walks over its slice of taps and
// channels, 16 at a time; a thread owns R pixels by 4 * C channels in registers.
const TX = 8u;
const TY = 8u;
const R = 8u;
const C = 2u;
alias A = f32;
alias B = f32;
alias U = f32;
const INPUT_GRAD = false;
const Y_BINDING = 3u;
const VALUES = 1u;

// Forward: a = x [n, in_h, in_w, in_c], w [kh, kw, in_c, out_c], y [n, out_h, out_w, out_c].
// Input gradient: a = dy [n, in_h, in_w, in_c], w [kh, kw, out_c, in_c], y = dx [n, out_h, out_w, out_c].
// Grid: grid_x tiles of pixels, tiles of channels, then phases (input gradient: stride_h * stride_w, else 1) times layers,
// of grid_x tiles each, times slices of the sum, each of which is written to a y of its own.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, grid_x: u32,
  layers: u32, slices: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> w: array<B>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

// Vectors of four elements that a thread loads of a tile of 16 by TY * R.
const LOADS = 4 * R / TX;
const PITCH = 5u;
var<workgroup> tile_a: array<vec4f, TY * R * PITCH>;
var<workgroup> tile_b: array<vec4f, 16 * TX * C>;

// Elements i to i + 3, of which the first `count` exist. Where all rows are whole multiples of 4, the loader replaces
// the alias by a vector and the body by `return vec4f(a[i / 4]);`.
fn load_a(i: u32, count: u32) -> vec4f {
  let in = vec4u(0, 1, 2, 3) < vec4u(count);
  return select(vec4f(), vec4f(f32(a[i]), f32(a[i + 1]), f32(a[i + 2]), f32(a[i + 3])), in);
}

fn load_b(i: u32, count: u32) -> vec4f {
  let in = vec4u(0, 1, 2, 3) < vec4u(count);
  return select(vec4f(), vec4f(f32(w[i]), f32(w[i + 1]), f32(w[i + 2]), f32(w[i + 3])), in);
}

// What `store` needs of an output channel, loaded once for all pixels.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = U(v);
}

struct Tap {
  y: i32,
  x: i32,
  hit: bool,
}

// Where a tap reads, relative to the beginning of a pixel's window.
fn tap_offset(tap: u32, phase: vec2u) -> Tap {
  let ky = tap / s.kw;
  let ty = i32(ky * s.dil_h) - i32(s.pad_h);
  let tx = i32((tap - ky * s.kw) * s.dil_w) - i32(s.pad_w);
  if (!INPUT_GRAD) {
    return Tap(ty, tx, true);
  }
  let stride = vec2i(i32(s.stride_h), i32(s.stride_w));
  let d = vec2i(phase) - vec2i(ty, tx);
  let q = d / stride;
  return Tap(q.x, q.y, all(q * stride == d));
}

@compute @workgroup_size(TX * TY)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  let phases = step.x * step.y;
  let phase = vec2u(wg.z % phases / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * rows * cols;
  let layer = wg.z / phases;
  let slice = layer / s.layers;
  let m0 = (wg.x + (layer - slice * s.layers) * s.grid_x) * TY * R;
  let n0 = wg.y * 4 * TX * C;
  if (m0 >= pixels) {
    return;
  }

  // The pixels this thread loads. Images take turns, so that a tile covers few places of the map.
  var py: array<i32, LOADS>;
  var px: array<i32, LOADS>;
  var at: array<i32, LOADS>;
  for (var i = 0u; i < LOADS; i++) {
    let p = m0 + id / 4 + TX * TY / 4 * i;
    let place = p / s.n;
    py[i] = select(-0x40000000, i32(place / cols) * scale.x, p < pixels);
    px[i] = i32(place % cols) * scale.y;
    at[i] = i32((p - place * s.n) * s.in_h) * i32(s.in_w);
  }
  // The part of the map under the tile, to skip taps that lie outside of it.
  let from_place = m0 / s.n;
  let to_place = (min(m0 + TY * R, pixels) - 1) / s.n;
  let top = i32(from_place / cols) * scale.x;
  let bottom = i32(to_place / cols) * scale.x;
  let left = select(0, i32(from_place % cols), top == bottom) * scale.y;
  let right = select(i32(cols) - 1, i32(to_place % cols), top == bottom) * scale.y;

  let tx = id % TX;
  let ty = id / TX;
  var acc: array<array<vec4f, C>, R>;
  let groups = (s.in_c + 3) / 4;
  let total = s.kh * s.kw * groups;
  let chunk = ((total + 3) / 4 + s.slices - 1) / s.slices * 4;
  let end = min((slice + 1) * chunk, total);
  // The tap and the group of four channels of the first column of a tile, and of the column that this thread loads.
  var tap = slice * chunk / groups;
  var first = slice * chunk - tap * groups;
  var tap_a = tap;
  var group_a = first + id % 4;
  var t = tap_offset(tap, phase);
  var t_a = t;
  for (var k = slice * chunk; k < end; k += 4) {
    while (first >= groups) {
      first -= groups;
      tap++;
      t = tap_offset(tap, phase);
    }
    let outside =
      !t.hit || bottom + t.y < 0 || top + t.y >= i32(s.in_h) || right + t.x < 0 || left + t.x >= i32(s.in_w);
    let skipped = outside && (first + 3 < groups || k + groups - first >= end);
    first += 4;
    if (skipped) {
      group_a += 4;
      continue;
    }
    while (group_a >= groups) {
      group_a -= groups;
      tap_a++;
      t_a = tap_offset(tap_a, phase);
    }

    for (var i = 0u; i < LOADS; i++) {
      let iy = py[i] + t_a.y;
      let ix = px[i] + t_a.x;
      var v = vec4f();
      if (k + id % 4 < end && t_a.hit && iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w)) {
        v = load_a(u32(at[i] + iy * i32(s.in_w) + ix) * s.in_c + group_a * 4, s.in_c - group_a * 4);
      }
      tile_a[(id / 4 + TX * TY / 4 * i) * PITCH + id % 4] = v;
    }
    group_a += 4;

    // Four by four weights for each thread: 4 inner channels by 4 output channels.
    if (id < 4 * TX * C) {
      let kg = select(id / (TX * C), id % 4, INPUT_GRAD);
      let ng = select(id % (TX * C), id / 4, INPUT_GRAD);
      let kb = k + kg;
      let tap = kb / groups;
      let c = (kb - tap * groups) * 4;
      let n = n0 + ng * 4;
      var b: mat4x4f;
      if (kb < end && n < s.out_c) {
        for (var i = 0u; i < 4; i++) {
          if (INPUT_GRAD) {
            if (n + i < s.out_c) {
              b[i] = load_b((tap * s.out_c + n + i) * s.in_c + c, s.in_c - c);
            }
          } else if (c + i < s.in_c) {
            b[i] = load_b((tap * s.in_c + c + i) * s.out_c + n, s.out_c - n);
          }
        }
      }
      if (INPUT_GRAD) {
        b = transpose(b);
      }
      for (var i = 0u; i < 4; i++) {
        tile_b[(kg * 4 + i) * TX * C + ng] = b[i];
      }
    }
    workgroupBarrier();

    for (var q = 0u; q < 4; q++) {
      var b: array<mat4x4f, C>;
      for (var j = 0u; j < C; j++) {
        for (var i = 0u; i < 4; i++) {
          b[j][i] = tile_b[(q * 4 + i) * TX * C + tx + TX * j];
        }
      }
      for (var r = 0u; r < R; r++) {
        let v = tile_a[(ty + TY * r) * PITCH + q];
        for (var j = 0u; j < C; j++) {
          acc[r][j] += v.x * b[j][0] + v.y * b[j][1] + v.z * b[j][2] + v.w * b[j][3];
        }
      }
    }
    workgroupBarrier();
  }

  var written: array<u32, R>;
  for (var r = 0u; r < R; r++) {
    let p = m0 + ty + TY * r;
    let place = p / s.n;
    let oy = place / cols;
    let ox = place - oy * cols;
    let image = p - place * s.n + slice * s.n;
    written[r] = (image * s.out_h + oy * step.x + phase.x) * s.out_w + ox * step.y + phase.y;
  }
  for (var j = 0u; j < C; j++) {
    for (var i = 0u; i < 4; i++) {
      let n = n0 + (tx + TX * j) * 4 + i;
      if (n < s.out_c) {
        let values = channel_values(n);
        for (var r = 0u; r < R; r++) {
          if (m0 + ty + TY * r < pixels) {
            store(written[r], n, acc[r][j][i], values);
          }
        }
      }
    }
  }
}
