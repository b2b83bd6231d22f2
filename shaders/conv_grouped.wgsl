// Grouped and depthwise convolution and its input gradient, directly: a thread owns P consecutive pixels of one channel,
// neighbouring threads neighbouring channels, so that a weight is loaded once for P multiply-adds.
const P = 8u;
alias A = f32;
alias B = f32;
alias U = f32;
const INPUT_GRAD = false;

// Forward: a = x [n, in_h, in_w, in_c], w [kh, kw, in_c / groups, out_c], y [n, out_h, out_w, out_c].
// Input gradient: a = dy [n, in_h, in_w, in_c], w [kh, kw, out_c / groups, in_c], y = dx [n, out_h, out_w, out_c].
// Grid: 64 threads each of (tiles of P pixels) * out_c, spread over x and y; z: phases (input gradient: stride_h *
// stride_w, else 1).
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, groups: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> w: array<B>;
@group(0) @binding(3) var<storage, read_write> y: array<U>;

fn load_a(i: u32) -> f32 {
  return f32(a[i]);
}

fn store(pixel: u32, n: u32, v: f32) {
  y[pixel * s.out_c + n] = U(v);
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) id: u32,
) {
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  let phase = vec2u(wg.z / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * rows * cols;
  let e = (wg.y * grid.x + wg.x) * 64 + id;
  let n = e % s.out_c;
  let m0 = e / s.out_c * P;
  if (m0 >= pixels) {
    return;
  }
  // Channels of one group in the map read and in the map written.
  let read = s.in_c / s.groups;
  let written = s.out_c / s.groups;
  let c0 = n / written * read;

  var py: array<i32, P>;
  var px: array<i32, P>;
  var at: array<i32, P>;
  var pixel: array<u32, P>;
  var ox = m0 % cols;
  var oy = m0 / cols % rows;
  var image = m0 / cols / rows;
  for (var i = 0u; i < P; i++) {
    py[i] = select(-0x40000000, i32(oy) * scale.x, image < s.n);
    px[i] = i32(ox) * scale.y;
    at[i] = i32(image * s.in_h) * i32(s.in_w);
    pixel[i] = (image * s.out_h + oy * step.x + phase.x) * s.out_w + ox * step.y + phase.y;
    ox++;
    let end_x = ox == cols;
    ox = select(ox, 0, end_x);
    oy += u32(end_x);
    let end_y = oy == rows;
    oy = select(oy, 0, end_y);
    image += u32(end_y);
  }

  var acc: array<f32, P>;
  for (var ky = 0u; ky < s.kh; ky++) {
    for (var kx = 0u; kx < s.kw; kx++) {
      var ty = i32(ky * s.dil_h) - i32(s.pad_h);
      var tx = i32(kx * s.dil_w) - i32(s.pad_w);
      if (INPUT_GRAD) {
        ty = i32(phase.x) - ty;
        tx = i32(phase.y) - tx;
        if (ty % i32(s.stride_h) != 0 || tx % i32(s.stride_w) != 0) {
          continue;
        }
        ty /= i32(s.stride_h);
        tx /= i32(s.stride_w);
      }
      let tap = ky * s.kw + kx;
      var source: array<u32, P>;
      var inside: array<bool, P>;
      for (var i = 0u; i < P; i++) {
        let iy = py[i] + ty;
        let ix = px[i] + tx;
        inside[i] = iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w);
        source[i] = select(0, u32(at[i] + iy * i32(s.in_w) + ix) * s.in_c + c0, inside[i]);
      }
      for (var k = 0u; k < read; k++) {
        let forward = (tap * read + k) * s.out_c + n;
        let backward = (tap * written + n % written) * s.in_c + c0 + k;
        let b = f32(w[select(forward, backward, INPUT_GRAD)]);
        for (var i = 0u; i < P; i++) {
          acc[i] = fma(select(0.0, load_a(source[i] + k), inside[i]), b, acc[i]);
        }
      }
    }
  }

  for (var i = 0u; i < P; i++) {
    if (m0 + i < pixels) {
      store(pixel[i], n, acc[i]);
    }
  }
}
