// Weight gradient of a convolution, as an implicit GEMM for adapters whose subgroups have 8 lanes.
// One workgroup is one subgroup. It owns 2 * L rows (tap and input channel) by 8 * G output channels of the gradient and
// sums over a slice of the pixels; the lanes lie along the output channels.
// A lane-wide load of `x` brings 4 pixels of 2 rows, which are then broadcast: where a load is a gather, loads dominate.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const L = 16u;
const G = 2u;
alias V = vec2f;
alias T = f32;
alias U = f32;

// x [n, in_h, in_w, in_c], dy [n, out_h, out_w, out_c], dw [slices, kh, kw, in_c, out_c].
// Grid: tiles of rows, tiles of channels, slices. Slice z sums the pixels [z * chunk, (z + 1) * chunk) of dy.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, chunk: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> dy: array<T>;
@group(0) @binding(3) var<storage, read_write> dw: array<U>;

fn load_a(i: u32) -> f32 {
  return f32(x[i]);
}

fn load_b(pixel: u32, n: u32) -> f32 {
  return f32(dy[pixel * s.out_c + n]);
}

fn store(slice: u32, row: u32, n: u32, v: f32) {
  dw[(slice * s.kh * s.kw * s.in_c + row) * s.out_c + n] = U(v);
}

fn gradients(pixel: u32, n: array<u32, G>) -> V {
  var b: V;
  for (var g = 0u; g < G; g++) {
    b[g] = load_b(pixel, n[g]);
  }
  return b;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let rows = s.kh * s.kw * s.in_c;
  let m0 = wg.x * 2 * L;
  let n0 = wg.y * 8 * G + lane;
  var n: array<u32, G>;
  for (var g = 0u; g < G; g++) {
    n[g] = min(n0 + g * 8, s.out_c - 1);
  }

  // Row m0 + 2 * l + lane / 4 of each load: the offset of its tap from a pixel's window, and of its element.
  var ry: array<i32, L>;
  var rx: array<i32, L>;
  var ro: array<i32, L>;
  for (var l = 0u; l < L; l++) {
    let m = m0 + 2 * l + lane / 4;
    let tap = m / s.in_c;
    ry[l] = select(-0x40000000, i32(tap / s.kw * s.dil_h) - i32(s.pad_h), m < rows);
    rx[l] = i32(tap % s.kw * s.dil_w) - i32(s.pad_w);
    ro[l] = (ry[l] * i32(s.in_w) + rx[l]) * i32(s.in_c) + i32(m % s.in_c);
  }

  // The lane's pixel: begin + lane % 4, then every fourth.
  let pixels = s.n * s.out_h * s.out_w;
  let begin = wg.z * s.chunk;
  let end = min(begin + s.chunk, pixels);
  let first = begin + lane % 4;
  var ox = first % s.out_w;
  var oy = first / s.out_w % s.out_h;
  var image = first / s.out_w / s.out_h;
  let step_x = 4 % s.out_w;
  let step_y = 4 / s.out_w % s.out_h;
  let step_n = 4 / s.out_w / s.out_h;

  var acc0: array<V, L>;
  var acc1: array<V, L>;
  for (var k = begin; k < end; k += 4) {
    let iy = i32(oy * s.stride_h);
    let ix = i32(ox * s.stride_w);
    let base = ((i32(image * s.in_h) + iy) * i32(s.in_w) + ix) * i32(s.in_c);
    let live = k + lane % 4 < end;
    var inside: array<bool, L>;
    var any = false;
    for (var l = 0u; l < L; l++) {
      inside[l] = live && u32(iy + ry[l]) < s.in_h && u32(ix + rx[l]) < s.in_w;
      any |= inside[l];
    }
    if (subgroupAny(any)) {
      let b0 = gradients(k, n);
      let b1 = gradients(min(k + 1, end - 1), n);
      let b2 = gradients(min(k + 2, end - 1), n);
      let b3 = gradients(min(k + 3, end - 1), n);
      for (var l = 0u; l < L; l++) {
        let a = select(0.0, load_a(u32(base + ro[l])), inside[l]);
        var t = acc0[l];
        t = fma(V(subgroupBroadcast(a, 0u)), b0, t);
        t = fma(V(subgroupBroadcast(a, 1u)), b1, t);
        t = fma(V(subgroupBroadcast(a, 2u)), b2, t);
        t = fma(V(subgroupBroadcast(a, 3u)), b3, t);
        acc0[l] = t;
        t = acc1[l];
        t = fma(V(subgroupBroadcast(a, 4u)), b0, t);
        t = fma(V(subgroupBroadcast(a, 5u)), b1, t);
        t = fma(V(subgroupBroadcast(a, 6u)), b2, t);
        t = fma(V(subgroupBroadcast(a, 7u)), b3, t);
        acc1[l] = t;
      }
    }
    ox += step_x;
    let carry_x = ox >= s.out_w;
    ox -= select(0, s.out_w, carry_x);
    oy += step_y + u32(carry_x);
    let carry_y = oy >= s.out_h;
    oy -= select(0, s.out_h, carry_y);
    image += step_n + u32(carry_y);
  }

  // The trip count is unknown to the compiler, which therefore leaves this a loop: unrolled, the stores fill the caches.
  var sums: array<V, 2 * L>;
  for (var l = 0u; l < L; l++) {
    sums[2 * l] = acc0[l];
    sums[2 * l + 1] = acc1[l];
  }
  for (var r = 0u; r < min(2 * L, rows - m0); r++) {
    let v = sums[r];
    for (var g = 0u; g < G; g++) {
      if (n0 + g * 8 < s.out_c) {
        store(wg.z, m0 + r, n0 + g * 8, v[g]);
      }
    }
  }
}
