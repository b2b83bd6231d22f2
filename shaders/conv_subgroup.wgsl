// Convolution, its input gradient and the matrix product, as an implicit GEMM for CPU drivers. One workgroup is one subgroup,
// of 8 lanes or 4. It owns P vectors of PIXELS pixels by N vectors of CHANNELS output channels. A product of
// two vectors is an outer product: one of them meets the other as it is and with its lanes exchanged in every way i ^ j.
// So a load brings an element for each lane that is multiplied as many times: where a load is a gather, loads dominate.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const LANES = 8u;
const P = 4u;
const N = 4u;
alias V = vec4f;
// As many as lanes; of 8 lanes 4 where there are no more, which they then hold twice.
const PIXELS = 8u;
const CHANNELS = 8u;
const EXCHANGES = min(PIXELS, CHANNELS);
// Elements of the sum that an iteration adds: more would not fit the instruction cache.
const K = 2u;
alias A = f32;
alias B = f32;
alias U = f32;
const INPUT_GRAD = false;
// Whether the weights of an input gradient are [kh, kw, in_c, out_c].
const TRANSPOSED = false;
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

fn load_a(i: u32) -> f32 {
  return f32(a[i]);
}

fn load_b(tap: u32, k: u32, n: u32) -> f32 {
  if (INPUT_GRAD && !TRANSPOSED) {
    return f32(w[(tap * s.out_c + n) * s.in_c + k]);
  }
  return f32(w[(tap * s.in_c + k) * s.out_c + n]);
}

// What `store` needs of an output channel, loaded once for all pixels.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = U(v);
}

fn weights(tap: u32, k: u32, n: array<u32, N>) -> V {
  var b: V;
  for (var g = 0u; g < N; g++) {
    b[g] = load_b(tap, k, n[g]);
  }
  return b;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  // The strides of the written map: its pixels of one phase share the taps that reach them.
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let phases = step.x * step.y;
  let phase = vec2u(wg.z % phases / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * rows * cols;
  let m0 = (wg.x + wg.z / phases * s.grid_x) * PIXELS * P;
  if (m0 >= pixels) {
    return;
  }
  let n0 = wg.y * CHANNELS * N + lane % CHANNELS;
  var n: array<u32, N>;
  for (var g = 0u; g < N; g++) {
    n[g] = min(n0 + g * CHANNELS, s.out_c - 1);
  }

  // The lane's pixel of each vector: where its window begins, the rows of its image before that, and where it is written.
  // Images take turns, so that a tile covers few places of the map, and a tap outside the map is outside for all of them.
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  var py: array<i32, P>;
  var px: array<i32, P>;
  var first: array<i32, P>;
  var written: array<u32, P>;
  for (var p = 0u; p < P; p++) {
    let m = m0 + p * PIXELS + lane % PIXELS;
    let place = m / s.n;
    let image = m - place * s.n;
    let oy = place / cols;
    let ox = place - oy * cols;
    py[p] = select(-0x40000000, i32(oy) * scale.x, m < pixels);
    px[p] = i32(ox) * scale.y;
    first[p] = i32(image * s.in_h);
    let pixel = (image * s.out_h + oy * step.x + phase.x) * s.out_w + ox * step.y + phase.y;
    written[p] = select(0xffffffff, pixel, m < pixels);
  }

  // Without dilation the taps of a row of the window read one run of elements.
  let merged = !INPUT_GRAD && s.dil_w == 1;
  let span = select(1, i32(s.kw), merged);
  let run = u32(span) * s.in_c;
  var acc: array<V, P * EXCHANGES>;
  for (var ky = 0u; ky < s.kh; ky++) {
    for (var kx = 0u; kx < s.kw; kx += u32(span)) {
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
      // Elements begin to begin + live - 1 of the run lie within the map.
      var at: array<i32, P>;
      var begin: array<u32, P>;
      var live: array<u32, P>;
      var any = false;
      for (var p = 0u; p < P; p++) {
        let iy = py[p] + ty;
        let ix = px[p] + tx;
        let inside = hit && u32(iy) < s.in_h;
        let from_x = clamp(-ix, 0, span);
        let to_x = select(from_x, clamp(i32(s.in_w) - ix, from_x, span), inside);
        at[p] = ((first[p] + iy) * i32(s.in_w) + ix) * i32(s.in_c);
        begin[p] = u32(from_x) * s.in_c;
        live[p] = u32(to_x - from_x) * s.in_c;
        any |= to_x > from_x;
      }
      if (!subgroupAny(any)) {
        continue;
      }
      let tap = ky * s.kw + kx;
      for (var k = 0u; k < run; k += K) {
        var b: array<V, K>;
        for (var i = 0u; i < K; i++) {
          b[i] = weights(tap, min(k + i, run - 1), n);
        }
        for (var p = 0u; p < P; p++) {
          var x: array<f32, K>;
          for (var i = 0u; i < K; i++) {
            x[i] = select(0.0, load_a(u32(at[p]) + k + i), k + i - begin[p] < live[p]);
          }
          for (var j = 0u; j < EXCHANGES; j++) {
            var t = acc[p * EXCHANGES + j];
            for (var i = 0u; i < K; i++) {
              t = fma(V(subgroupShuffle(x[i], lane ^ j)), b[i], t);
            }
            acc[p * EXCHANGES + j] = t;
          }
        }
      }
    }
  }

  var values: array<array<f32, VALUES>, N>;
  for (var g = 0u; g < N; g++) {
    values[g] = channel_values(min(n0 + g * CHANNELS, s.out_c - 1));
  }
  // The trip count is unknown to the compiler, which therefore leaves this a loop: unrolled, the stores fill the caches.
  let vectors = min(P, (pixels - m0 + PIXELS - 1) / PIXELS);
  for (var r = 0u; r < vectors * EXCHANGES; r++) {
    let pixel = subgroupShuffle(written[r / EXCHANGES], lane ^ (r % EXCHANGES));
    let v = acc[r];
    for (var g = 0u; g < N; g++) {
      if (pixel != 0xffffffff && n0 + g * CHANNELS < s.out_c) {
        store(pixel, n0 + g * CHANNELS, v[g], values[g]);
      }
    }
  }
}
