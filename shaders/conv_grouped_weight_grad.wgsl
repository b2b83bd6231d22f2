// Weight gradient of a grouped or depthwise convolution, directly: a thread owns R rows (tap and input channel of the
// group) of one output channel, neighbouring threads neighbouring channels, and sums over a slice of the pixels.
const R = 9u;
alias A = f32;
alias B = f32;
alias U = f32;

// x [n, in_h, in_w, in_c], dy [n, out_h, out_w, out_c], dw [slices, kh, kw, in_c / groups, out_c].
// Grid: 64 threads each of (tiles of R rows) * out_c; y is 1; z: slices, each of which sums its share of the
// pixels of dy.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, slices: u32,
  groups: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<A>;
@group(0) @binding(2) var<storage, read> dy: array<B>;
@group(0) @binding(3) var<storage, read_write> dw: array<U>;

fn load_a(i: u32) -> f32 {
  return f32(x[i]);
}

fn store(slice: u32, row: u32, n: u32, v: f32) {
  dw[(slice * s.kh * s.kw * (s.in_c / s.groups) + row) * s.out_c + n] = U(v);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let read = s.in_c / s.groups;
  let rows = s.kh * s.kw * read;
  let e = wg.x * 64 + id;
  let n = e % s.out_c;
  let m0 = e / s.out_c * R;
  if (m0 >= rows) {
    return;
  }
  let c0 = n / (s.out_c / s.groups) * read;

  // Each row's tap, relative to a pixel's window, and the offset of its element from the window's first.
  var ty: array<i32, R>;
  var tx: array<i32, R>;
  var offset: array<i32, R>;
  for (var r = 0u; r < R; r++) {
    let m = m0 + r;
    let tap = m / read;
    ty[r] = select(-0x40000000, i32(tap / s.kw * s.dil_h) - i32(s.pad_h), m < rows);
    tx[r] = i32(tap % s.kw * s.dil_w) - i32(s.pad_w);
    offset[r] = (ty[r] * i32(s.in_w) + tx[r]) * i32(s.in_c) + i32(c0 + m % read);
  }

  let pixels = s.n * s.out_h * s.out_w;
  let chunk = (pixels + s.slices - 1) / s.slices;
  let begin = wg.z * chunk;
  let end = min(begin + chunk, pixels);
  var ox = begin % s.out_w;
  var oy = begin / s.out_w % s.out_h;
  var image = begin / s.out_w / s.out_h;
  var acc: array<f32, R>;
  for (var p = begin; p < end; p++) {
    let iy = i32(oy * s.stride_h);
    let ix = i32(ox * s.stride_w);
    let base = ((i32(image * s.in_h) + iy) * i32(s.in_w) + ix) * i32(s.in_c);
    let g = f32(dy[p * s.out_c + n]);
    for (var r = 0u; r < R; r++) {
      let inside = u32(iy + ty[r]) < s.in_h && u32(ix + tx[r]) < s.in_w;
      acc[r] = fma(select(0.0, load_a(u32(select(0, base + offset[r], inside))), inside), g, acc[r]);
    }
    ox++;
    let end_x = ox == s.out_w;
    ox = select(ox, 0, end_x);
    oy += u32(end_x);
    let end_y = oy == s.out_h;
    oy = select(oy, 0, end_y);
    image += u32(end_y);
  }

  for (var r = 0u; r < R; r++) {
    if (m0 + r < rows) {
      store(wg.z, m0 + r, n, acc[r]);
    }
  }
}
