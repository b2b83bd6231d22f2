// Weight gradient of a convolution, as an implicit GEMM for CPU drivers. One workgroup is one subgroup, of 8 lanes or 4. It
// owns P vectors of LANES rows (tap and input channel) by N vectors of CHANNELS output channels of the gradient and sums over a slice
// of the pixels, by outer products as `conv_subgroup.wgsl` does.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const LANES = 8u;
const P = 4u;
const N = 4u;
alias V = vec4f;
// As many as lanes; of 8 lanes 4 where there are no more.
const CHANNELS = 8u;
// Pixels that an iteration adds.
const K = 2u;
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

fn load_a(i: u32) -> f32 {
  return f32(x[i]);
}

fn load_b(pixel: u32, n: u32) -> f32 {
  return f32(dy[pixel * s.out_c + n]);
}

// What `store` needs of an output channel.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(row: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[row * s.out_c + n] = U(v);
}

fn gradients(pixel: u32, n: array<u32, N>) -> V {
  var b: V;
  for (var g = 0u; g < N; g++) {
    b[g] = load_b(pixel, n[g]);
  }
  return b;
}

// The first of `places` windows that reach the map with a tap at `offset`, and the one after the last.
fn reaching(offset: i32, stride: u32, size: u32, places: u32) -> vec2u {
  let last = (i32(size + stride) - 1 - offset) / i32(stride);
  return vec2u((u32(max(-offset, 0)) + stride - 1) / stride, u32(clamp(last, 0, i32(places))));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let rows = s.kh * s.kw * s.in_c;
  let m0 = wg.x * LANES * P;
  let n0 = wg.y * CHANNELS * N + lane % CHANNELS;
  var n: array<u32, N>;
  for (var g = 0u; g < N; g++) {
    n[g] = min(n0 + g * CHANNELS, s.out_c - 1);
  }

  // The lane's row of each vector: the offset of its tap from a pixel's window, and of its element. The pixels that any
  // of the rows reads lie in a box of the map.
  var ry: array<i32, P>;
  var rx: array<i32, P>;
  var ro: array<i32, P>;
  var low = vec2u(s.out_h, s.out_w);
  var high = vec2u(0);
  for (var p = 0u; p < P; p++) {
    let m = m0 + p * LANES + lane;
    let tap = m / s.in_c;
    let ky = tap / s.kw;
    let ty = i32(ky * s.dil_h) - i32(s.pad_h);
    let tx = i32((tap - ky * s.kw) * s.dil_w) - i32(s.pad_w);
    let y_range = reaching(ty, s.stride_h, s.in_h, s.out_h);
    let x_range = reaching(tx, s.stride_w, s.in_w, s.out_w);
    let live = m < rows && y_range.x < y_range.y && x_range.x < x_range.y;
    low = select(low, min(low, vec2u(y_range.x, x_range.x)), live);
    high = select(high, max(high, vec2u(y_range.y, x_range.y)), live);
    ry[p] = select(-0x40000000, ty, live);
    rx[p] = tx;
    ro[p] = (ty * i32(s.in_w) + tx) * i32(s.in_c) + i32(m - tap * s.in_c);
  }
  low = subgroupMin(low);
  high = max(subgroupMax(high), low);
  let height = high.x - low.x;
  let width = high.y - low.y;
  let pixels = s.n * height * width;
  let chunk = (pixels + s.slices - 1) / s.slices;
  let begin = min(wg.z * chunk, pixels);
  let end = min(begin + chunk, pixels);

  // The pixel, relative to the box.
  var ox = begin % max(width, 1);
  var oy = begin / max(width, 1) % max(height, 1);
  var image = begin / max(width * height, 1);
  var acc: array<V, P * CHANNELS>;
  for (var k = begin; k < end; k += K) {
    var b: array<V, K>;
    var base: array<i32, K>;
    var iy: array<i32, K>;
    var ix: array<i32, K>;
    for (var i = 0u; i < K; i++) {
      // Of a pixel beyond the end, the rows are outside the map, and its gradient is read from another one.
      let x = ox + low.y;
      let y = oy + low.x;
      iy[i] = select(0x20000000, i32(y * s.stride_h), k + i < end);
      ix[i] = i32(x * s.stride_w);
      base[i] = ((i32(image * s.in_h) + i32(y * s.stride_h)) * i32(s.in_w) + ix[i]) * i32(s.in_c);
      b[i] = gradients((image * s.out_h + y) * s.out_w + x, n);
      let end_x = ox + 1 == width;
      ox = select(ox + 1, 0, end_x);
      let end_y = end_x && oy + 1 == height;
      oy = select(oy + u32(end_x), 0, end_y);
      image += u32(end_y);
    }
    for (var p = 0u; p < P; p++) {
      var a: array<f32, K>;
      for (var i = 0u; i < K; i++) {
        let inside = u32(iy[i] + ry[p]) < s.in_h && u32(ix[i] + rx[p]) < s.in_w;
        a[i] = select(0.0, load_a(u32(base[i] + ro[p])), inside);
      }
      for (var j = 0u; j < CHANNELS; j++) {
        var t = acc[p * CHANNELS + j];
        for (var i = 0u; i < K; i++) {
          t = fma(V(subgroupShuffle(a[i], lane ^ j)), b[i], t);
        }
        acc[p * CHANNELS + j] = t;
      }
    }
  }

  // The trip count is unknown to the compiler, which therefore leaves this a loop: unrolled, the stores fill the caches.
  for (var r = 0u; r < min(P, (rows - m0 + LANES - 1) / LANES) * CHANNELS; r++) {
    let m = m0 + r / CHANNELS * LANES + (lane ^ (r % CHANNELS));
    let v = acc[r];
    for (var g = 0u; g < N; g++) {
      if (m < rows && n0 + g * CHANNELS < s.out_c) {
        let n = n0 + g * CHANNELS;
        store(wg.z * s.kh * s.kw * s.in_c + m, n, v[g], channel_values(n));
      }
    }
  }
}
