// Convolution, its input gradient and the matrix product, as an implicit GEMM for adapters whose subgroups have 8 lanes.
// One workgroup is one subgroup. It owns 2 * L pixels by 8 * G output channels; the lanes lie along the channels.
// A lane-wide load of `a` brings 4 channels of 2 pixels, which are then broadcast: where a load is a gather, loads dominate.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const L = 16u;
const G = 2u;
alias V = vec2f;
alias T = f32;
alias U = f32;
const INPUT_GRAD = false;

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
@group(0) @binding(1) var<storage, read> a: array<T>;
@group(0) @binding(2) var<storage, read> w: array<T>;
@group(0) @binding(3) var<storage, read_write> y: array<U>;

fn load_a(i: u32) -> f32 {
  return f32(a[i]);
}

fn load_b(tap: u32, k: u32, n: u32) -> f32 {
  if (INPUT_GRAD) {
    return f32(w[(tap * s.out_c + n) * s.in_c + k]);
  }
  return f32(w[(tap * s.in_c + k) * s.out_c + n]);
}

fn store(pixel: u32, n: u32, v: f32) {
  y[pixel * s.out_c + n] = U(v);
}

fn weights(tap: u32, k: u32, n: array<u32, G>) -> V {
  var b: V;
  for (var g = 0u; g < G; g++) {
    b[g] = load_b(tap, min(k, s.in_c - 1), n[g]);
  }
  return b;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  // The strides of the written map: its pixels of one phase share the taps that reach them.
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let phases = step.x * step.y;
  let phase = vec2u(wg.z % phases / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * rows * cols;
  let m0 = (wg.x + wg.z / phases * s.grid_x) * 2 * L;
  if (m0 >= pixels) {
    return;
  }
  let n0 = wg.y * 8 * G + lane;
  var n: array<u32, G>;
  for (var g = 0u; g < G; g++) {
    n[g] = min(n0 + g * 8, s.out_c - 1);
  }

  // Pixel m0 + 2 * l + lane / 4 of each load: its image's first row, and where its window begins.
  let lk = lane % 4;
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  var p = m0 + lane / 4;
  var ox = p % cols;
  var oy = p / cols % rows;
  var image = p / cols / rows;
  let dx = 2 % cols;
  let dy = 2 / cols % rows;
  let dn = 2 / cols / rows;
  var first: array<i32, L>;
  var py: array<i32, L>;
  var px: array<i32, L>;
  for (var l = 0u; l < L; l++) {
    first[l] = i32(image * s.in_h);
    py[l] = select(-0x40000000, i32(oy) * scale.x, image < s.n);
    px[l] = i32(ox) * scale.y;
    ox += dx;
    let cx = ox >= cols;
    ox -= select(0, cols, cx);
    oy += dy + u32(cx);
    let cy = oy >= rows;
    oy -= select(0, rows, cy);
    image += dn + u32(cy);
  }

  var acc0: array<V, L>;
  var acc1: array<V, L>;
  for (var ky = 0u; ky < s.kh; ky++) {
    for (var kx = 0u; kx < s.kw; kx++) {
      let tap = ky * s.kw + kx;
      var ty = i32(ky * s.dil_h) - i32(s.pad_h);
      var tx = i32(kx * s.dil_w) - i32(s.pad_w);
      var hit = true;
      if (INPUT_GRAD) {
        ty = i32(phase.x) - ty;
        tx = i32(phase.y) - tx;
        hit = ty % i32(s.stride_h) == 0 && tx % i32(s.stride_w) == 0;
        ty /= i32(s.stride_h);
        tx /= i32(s.stride_w);
      }
      var at: array<i32, L>;
      var any = false;
      for (var l = 0u; l < L; l++) {
        let iy = py[l] + ty;
        let ix = px[l] + tx;
        let inside = hit && u32(iy) < s.in_h && u32(ix) < s.in_w;
        at[l] = select(-1, ((first[l] + iy) * i32(s.in_w) + ix) * i32(s.in_c) + i32(lk), inside);
        any |= inside;
      }
      if (!subgroupAny(any)) {
        continue;
      }
      for (var k = 0u; k < s.in_c; k += 4) {
        let b0 = weights(tap, k, n);
        let b1 = weights(tap, k + 1, n);
        let b2 = weights(tap, k + 2, n);
        let b3 = weights(tap, k + 3, n);
        let in_k = k + lk < s.in_c;
        for (var l = 0u; l < L; l++) {
          let x = select(0.0, load_a(u32(at[l]) + k), in_k && at[l] >= 0);
          var t = acc0[l];
          t = fma(V(subgroupBroadcast(x, 0u)), b0, t);
          t = fma(V(subgroupBroadcast(x, 1u)), b1, t);
          t = fma(V(subgroupBroadcast(x, 2u)), b2, t);
          t = fma(V(subgroupBroadcast(x, 3u)), b3, t);
          acc0[l] = t;
          t = acc1[l];
          t = fma(V(subgroupBroadcast(x, 4u)), b0, t);
          t = fma(V(subgroupBroadcast(x, 5u)), b1, t);
          t = fma(V(subgroupBroadcast(x, 6u)), b2, t);
          t = fma(V(subgroupBroadcast(x, 7u)), b3, t);
          acc1[l] = t;
        }
      }
    }
  }

  // The trip count is unknown to the compiler, which therefore leaves this a loop: unrolled, the stores fill the caches.
  var sums: array<V, 2 * L>;
  for (var l = 0u; l < L; l++) {
    sums[2 * l] = acc0[l];
    sums[2 * l + 1] = acc1[l];
  }
  let count = min(2 * L, pixels - m0);
  ox = m0 % cols;
  oy = m0 / cols % rows;
  image = m0 / cols / rows;
  for (var r = 0u; r < count; r++) {
    let pixel = (image * s.out_h + oy * step.x + phase.x) * s.out_w + ox * step.y + phase.y;
    let v = sums[r];
    for (var g = 0u; g < G; g++) {
      if (n0 + g * 8 < s.out_c) {
        store(pixel, n0 + g * 8, v[g]);
      }
    }
    ox++;
    let end_x = ox == cols;
    ox = select(ox, 0, end_x);
    oy += u32(end_x);
    let end_y = oy == rows;
    oy = select(oy, 0, end_y);
    image += u32(end_y);
  }
}
