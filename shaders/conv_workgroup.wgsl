// Convolution, its input gradient and the matrix product, as an implicit GEMM tiled in workgroup memory.
// A workgroup of 8 x 8 threads owns 8 * R pixels by 32 * C output channels and walks over taps and channels, 16 at a time;
// a thread owns R pixels by 4 * C channels in registers.
const R = 8u;
const C = 2u;
alias T = f32;
alias U = f32;
alias A = T;
alias B = T;
const INPUT_GRAD = false;
const Y_BINDING = 3u;
const VALUES = 1u;

// Forward: a = x [n, in_h, in_w, in_c], w [kh, kw, in_c, out_c], y [n, out_h, out_w, out_c].
// Input gradient: a = dy [n, in_h, in_w, in_c], w [kh, kw, out_c, in_c], y = dx [n, out_h, out_w, out_c].
// Grid: grid_x tiles of pixels, tiles of channels, then phases (input gradient: stride_h * stride_w, else 1) times what
// more of grid_x tiles of pixels there are.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> w: array<B>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

const PITCH = 5u;
var<workgroup> tile_a: array<vec4f, 8 * R * PITCH>;
var<workgroup> tile_b: array<vec4f, 16 * 8 * C>;

// Elements i to i + 3, of which the first `count` exist. Where all rows are whole multiples of 4, the loader replaces
// the alias by `vec4<T>` and the body by `return vec4f(a[i / 4]);`.
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

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  let phases = step.x * step.y;
  let phase = vec2u(wg.z % phases / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * rows * cols;
  let m0 = (wg.x + wg.z / phases * s.grid_x) * 8 * R;
  let n0 = wg.y * 32 * C;
  if (m0 >= pixels) {
    return;
  }

  // The pixels this thread loads: m0 + id / 4 + 16 * i.
  var py: array<i32, R / 2>;
  var px: array<i32, R / 2>;
  var at: array<i32, R / 2>;
  for (var i = 0u; i < R / 2; i++) {
    let p = m0 + id / 4 + 16 * i;
    let image = p / cols / rows;
    py[i] = select(-0x40000000, i32(p / cols % rows) * scale.x, p < pixels);
    px[i] = i32(p % cols) * scale.y;
    at[i] = i32(image * s.in_h) * i32(s.in_w);
  }
  // The rows of the map under the tile, to skip taps that lie outside of it.
  let last = min(m0 + 8 * R, pixels) - 1;
  let same_image = m0 / cols / rows == last / cols / rows;
  let top = select(0, i32(m0 / cols % rows), same_image) * scale.x;
  let bottom = select(i32(rows) - 1, i32(last / cols % rows), same_image) * scale.x;
  let right = (i32(cols) - 1) * scale.y;

  let tx = id % 8;
  let ty = id / 8;
  var acc: array<array<vec4f, C>, R>;
  let groups = (s.in_c + 3) / 4;
  let total = s.kh * s.kw * groups;
  for (var k = 0u; k < total; k += 4) {
    let tap0 = k / groups;
    if (tap0 == min(k + 3, total - 1) / groups) {
      let t = tap_offset(tap0, phase);
      if (!t.hit || bottom + t.y < 0 || top + t.y >= i32(s.in_h) || right + t.x < 0 || t.x >= i32(s.in_w)) {
        continue;
      }
    }

    let ka = k + id % 4;
    let tap_a = ka / groups;
    let ca = (ka - tap_a * groups) * 4;
    let t = tap_offset(tap_a, phase);
    for (var i = 0u; i < R / 2; i++) {
      let iy = py[i] + t.y;
      let ix = px[i] + t.x;
      var v = vec4f();
      if (ka < total && t.hit && iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w)) {
        v = load_a(u32(at[i] + iy * i32(s.in_w) + ix) * s.in_c + ca, s.in_c - ca);
      }
      tile_a[(id / 4 + 16 * i) * PITCH + id % 4] = v;
    }

    // Four by four weights for each thread: 4 inner channels by 4 output channels.
    if (id < 32 * C) {
      let kg = select(id / (8 * C), id % 4, INPUT_GRAD);
      let ng = select(id % (8 * C), id / 4, INPUT_GRAD);
      let kb = k + kg;
      let tap = kb / groups;
      let c = (kb - tap * groups) * 4;
      let n = n0 + ng * 4;
      var b: mat4x4f;
      if (kb < total && n < s.out_c) {
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
        tile_b[(kg * 4 + i) * 8 * C + ng] = b[i];
      }
    }
    workgroupBarrier();

    for (var q = 0u; q < 4; q++) {
      var b: array<mat4x4f, C>;
      for (var j = 0u; j < C; j++) {
        for (var i = 0u; i < 4; i++) {
          b[j][i] = tile_b[(q * 4 + i) * 8 * C + tx + 8 * j];
        }
      }
      for (var r = 0u; r < R; r++) {
        let v = tile_a[(ty + 8 * r) * PITCH + q];
        for (var j = 0u; j < C; j++) {
          acc[r][j] += v.x * b[j][0] + v.y * b[j][1] + v.z * b[j][2] + v.w * b[j][3];
        }
      }
    }
    workgroupBarrier();
  }

  var written: array<u32, R>;
  for (var r = 0u; r < R; r++) {
    let p = m0 + ty + 8 * r;
    written[r] =
      (p / cols / rows * s.out_h + p / cols % rows * step.x + phase.x) * s.out_w + p % cols * step.y + phase.y;
  }
  for (var j = 0u; j < C; j++) {
    for (var i = 0u; i < 4; i++) {
      let n = n0 + (tx + 8 * j) * 4 + i;
      if (n < s.out_c) {
        let values = channel_values(n);
        for (var r = 0u; r < R; r++) {
          if (m0 + ty + 8 * r < pixels) {
            store(written[r], n, acc[r][j][i], values);
          }
        }
      }
    }
  }
}
