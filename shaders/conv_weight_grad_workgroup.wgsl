// Weight gradient of a convolution, as an implicit GEMM tiled in workgroup memory.
// A workgroup of 8 x 8 threads owns 32 * R rows (tap and input channel, the channels filled up to a multiple of 4) by
// 32 * C output channels and sums over a slice of the pixels, 16 at a time; a thread owns 4 * R by 4 * C in registers.
const R = 2u;
const C = 2u;
alias T = f32;
alias U = f32;
alias A = T;
alias B = T;

// x [n, in_h, in_w, in_c], dy [n, out_h, out_w, out_c], dw [slices, kh, kw, in_c, out_c].
// Grid: tiles of rows, tiles of channels, slices, each of which sums its share of the pixels of dy.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, slices: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<A>;
@group(0) @binding(2) var<storage, read> dy: array<B>;
@group(0) @binding(3) var<storage, read_write> dw: array<U>;

var<workgroup> tile_a: array<vec4f, 16 * 8 * R>;
var<workgroup> tile_b: array<vec4f, 16 * 8 * C>;

// Elements i to i + 3, of which the first `count` exist. Where all rows are whole multiples of 4, the loader replaces
// the alias by `vec4<T>` and the body by `return vec4f(x[i / 4]);`.
fn load_a(i: u32, count: u32) -> vec4f {
  let in = vec4u(0, 1, 2, 3) < vec4u(count);
  return select(vec4f(), vec4f(f32(x[i]), f32(x[i + 1]), f32(x[i + 2]), f32(x[i + 3])), in);
}

fn load_b(i: u32, count: u32) -> vec4f {
  let in = vec4u(0, 1, 2, 3) < vec4u(count);
  return select(vec4f(), vec4f(f32(dy[i]), f32(dy[i + 1]), f32(dy[i + 2]), f32(dy[i + 3])), in);
}

fn store(slice: u32, row: u32, n: u32, v: f32) {
  dw[(slice * s.kh * s.kw * s.in_c + row) * s.out_c + n] = U(v);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let groups = (s.in_c + 3) / 4;
  let total = s.kh * s.kw * groups;
  let m0 = wg.x * 8 * R;
  let n0 = wg.y * 32 * C;
  let pixels = s.n * s.out_h * s.out_w;
  let chunk = (pixels + s.slices - 1) / s.slices;
  let begin = wg.z * chunk;
  let end = min(begin + chunk, pixels);

  let tx = id % 8;
  let ty = id / 8;
  var acc: array<array<vec4f, C>, 4 * R>;
  for (var k = begin; k < end; k += 16) {
    for (var e = id; e < 16 * 8 * R; e += 64) {
      let m = m0 + e % (8 * R);
      let tap = m / groups;
      let c = (m - tap * groups) * 4;
      let p = k + e / (8 * R);
      let oy = p / s.out_w % s.out_h;
      let iy = i32(oy * s.stride_h + tap / s.kw * s.dil_h) - i32(s.pad_h);
      let ix = i32(p % s.out_w * s.stride_w + tap % s.kw * s.dil_w) - i32(s.pad_w);
      var v = vec4f();
      if (m < total && p < end && iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w)) {
        let image = p / s.out_w / s.out_h;
        v = load_a(((image * s.in_h + u32(iy)) * s.in_w + u32(ix)) * s.in_c + c, s.in_c - c);
      }
      tile_a[e] = v;
    }
    for (var e = id; e < 16 * 8 * C; e += 64) {
      let n = n0 + e % (8 * C) * 4;
      let p = k + e / (8 * C);
      var v = vec4f();
      if (p < end && n < s.out_c) {
        v = load_b(p * s.out_c + n, s.out_c - n);
      }
      tile_b[e] = v;
    }
    workgroupBarrier();

    for (var q = 0u; q < 16; q++) {
      for (var r = 0u; r < R; r++) {
        let v = tile_a[q * 8 * R + ty + 8 * r];
        for (var j = 0u; j < C; j++) {
          let b = tile_b[q * 8 * C + tx + 8 * j];
          for (var i = 0u; i < 4; i++) {
            acc[4 * r + i][j] += v[i] * b;
          }
        }
      }
    }
    workgroupBarrier();
  }

  for (var r = 0u; r < R; r++) {
    let m = m0 + ty + 8 * r;
    let tap = m / groups;
    let c = (m - tap * groups) * 4;
    for (var i = 0u; i < 4; i++) {
      if (m < total && c + i < s.in_c) {
        for (var j = 0u; j < C; j++) {
          for (var h = 0u; h < 4; h++) {
            let n = n0 + (tx + 8 * j) * 4 + h;
            if (n < s.out_c) {
              store(wg.z, tap * s.in_c + c + i, n, acc[4 * r + i][j][h]);
            }
          }
        }
      }
    }
  }
}
