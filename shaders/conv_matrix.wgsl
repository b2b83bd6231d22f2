// Convolution, its input gradient and the matrix product, as an implicit GEMM on matrix units, added up in f32.
// A workgroup of SY by SX subgroups owns SY * WM * M pixels by SX * WN * N output channels, and walks over its slice of the
// sum: DEPTH channels at a time, and of these all taps, so that neighbouring taps find in the caches what they share. All its
// threads bring a step's factors to workgroup memory, while the units work on those of the step before.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
// What the units are given depends on the subgroup alone, and so does whether they run.
diagnostic(off, chromium.subgroup_matrix_uniformity);
diagnostic(off, subgroup_uniformity);

// A product of the units: M x K by K x N.
const M = 8u;
const N = 8u;
const K = 8u;
// Of a subgroup, at most: where subgroups turn out to be smaller, there are more of them, and the last ones only load.
const LANES = 8u;
const SY = 2u;
const SX = 2u;
// Matrices of a subgroup; of a row of them SPAN are stored at once, SPANS times.
const WM = 2u;
const WN = 2u;
const SPAN = 2u;
const SPANS = 1u;
const DEPTH = 32u;
// Tiles of each factor: with two of them, a step takes one barrier.
const BUFFERS = 2u;
// Groups of eight elements that a thread loads of each factor in a step: those of its tile over THREADS, rounded up.
const A_LOADS = 4u;
const B_LOADS = 4u;
// What the units multiply; what is read, and written, an element or 16 bytes at a time; the type of an element of the
// result, and of four of them.
alias E = f16;
alias A = f16;
alias B = f16;
alias Y = f32;
alias U = f32;
alias V = vec4f;
const INPUT_GRAD = false;
// Whether what is read of `a` passes through a formula on its way to workgroup memory, and how many values this takes of a
// channel.
const THROUGH = false;
const A_VALUES = 1u;
const Y_BINDING = 3u;
const VALUES = 1u;
// Whether a tile also sums what it stores over its rows, how many sums there are for each channel, and whether they are of
// differences from a value of the tile.
const SUMMING = false;
const SUMS = 1u;
const RELATIVE = false;

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
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<Y>;

const THREADS = SY * SX * LANES;
const ROWS = SY * WM * M;
const COLUMNS = SX * WN * N;
// Groups of eight elements in a line of a tile. Lines are padded by a group, so that the rows of a matrix lie in different
// banks.
const GROUPS = DEPTH / 8;
const B_GROUPS = select(COLUMNS / 8, GROUPS, INPUT_GRAD);
const B_LINES = select(DEPTH, COLUMNS, INPUT_GRAD);
const A_PITCH = DEPTH + 8;
const B_PITCH = B_GROUPS * 8 + 8;
const A_SIZE = ROWS * A_PITCH;
const B_SIZE = B_LINES * B_PITCH;
var<workgroup> tile_a: array<vec4<E>, BUFFERS * A_SIZE / 4>;
// As the weights lie in memory: lines of output channels, or of inner ones in the input gradient.
var<workgroup> tile_b: array<vec4<E>, BUFFERS * B_SIZE / 4>;
// A patch of matrices of each subgroup, which alone reads it, but for the sums.
const PITCH = SPAN * N;
const PATCH = M * PITCH;
var<workgroup> results: array<vec4f, SY * SX * PATCH / 4>;
// Where the tile's pixels are written.
var<workgroup> written: array<u32, ROWS>;

// Elements i to i + 7, of which the first `count` exist. Where all rows are whole multiples of 8, the loader replaces
// the alias by a vector of 16 bytes, and the body by loads of those.
fn load_a(i: u32, count: u32) -> mat2x4<E> {
  let low = vec4<E>(E(a[i]), E(a[i + 1]), E(a[i + 2]), E(a[i + 3]));
  let high = vec4<E>(E(a[i + 4]), E(a[i + 5]), E(a[i + 6]), E(a[i + 7]));
  return mat2x4<E>(
    select(vec4<E>(), low, vec4u(0, 1, 2, 3) < vec4u(count)),
    select(vec4<E>(), high, vec4u(4, 5, 6, 7) < vec4u(count)),
  );
}

fn load_b(i: u32, count: u32) -> mat2x4<E> {
  let low = vec4<E>(E(w[i]), E(w[i + 1]), E(w[i + 2]), E(w[i + 3]));
  let high = vec4<E>(E(w[i + 4]), E(w[i + 5]), E(w[i + 6]), E(w[i + 7]));
  return mat2x4<E>(
    select(vec4<E>(), low, vec4u(0, 1, 2, 3) < vec4u(count)),
    select(vec4<E>(), high, vec4u(4, 5, 6, 7) < vec4u(count)),
  );
}

// What `through` needs of eight channels from c on.
fn channel_values_a(c: u32) -> array<array<f32, A_VALUES>, 8> {
  return array<array<f32, A_VALUES>, 8>();
}

// Eight channels of `a`, as the units get them.
fn through(v: mat2x4<E>, values: array<array<f32, A_VALUES>, 8>) -> mat2x4<E> {
  return v;
}

// What `store` needs of an output channel, loaded once for all pixels.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = U(v);
}

// Eight channels of a pixel from n on. Where their number is a multiple of 8, the loader replaces this by stores of 16
// bytes.
fn store_group(pixel: u32, n: u32, low: vec4f, high: vec4f, values: array<array<f32, VALUES>, 8>) {
  for (var k = 0u; k < 4u; k++) { // unrolled
    if (n + k < s.out_c) {
      store(pixel, n + k, low[k], values[k]);
    }
  }
  for (var k = 0u; k < 4u; k++) { // unrolled
    if (n + 4 + k < s.out_c) {
      store(pixel, n + 4 + k, high[k], values[k + 4]);
    }
  }
}

// What such a group is when it is stored, before it is rounded.
fn stored_group(pixel: u32, n: u32, low: vec4f, high: vec4f, values: array<array<f32, VALUES>, 8>) -> mat2x4f {
  return mat2x4f(low, high);
}

// Of the eight channels that a lane stores: sums over its rows, and a value of the tile near the mean: the median of three,
// so that one that lies far off, such as a corner's, does no harm.
var<private> totals: array<mat2x4f, SUMS>;
var<private> near: mat2x4f;

fn median(a: vec4f, b: vec4f, c: vec4f) -> vec4f {
  return max(min(a, b), min(max(a, b), c));
}

// What becomes of the sums of a tile's rows, whose index is `part`, for eight channels from n on.
fn keep(part: u32, parts: u32, n: u32, rows: f32) {}

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

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(local_invocation_index) id: u32,
  @builtin(subgroup_size) lanes: u32,
) {
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  let phases = step.x * step.y;
  let phase = vec2u(wg.z % phases / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * rows * cols;
  let layer = wg.z / phases;
  let slice = layer / s.layers;
  let m0 = (wg.x + (layer - slice * s.layers) * s.grid_x) * ROWS;
  let n0 = wg.y * COLUMNS;
  if (m0 >= pixels) {
    return;
  }

  // Images take turns, so that a tile covers few places of the map.
  for (var r = id; r < ROWS; r += THREADS) {
    let p = m0 + r;
    let place = p / s.n;
    let oy = place / cols;
    let image = p - place * s.n + slice * s.n;
    written[r] = (image * s.out_h + oy * step.x + phase.x) * s.out_w + (place - oy * cols) * step.y + phase.y;
  }
  // The pixels this thread loads.
  var py: array<i32, A_LOADS>;
  var px: array<i32, A_LOADS>;
  var image: array<i32, A_LOADS>;
  for (var i = 0u; i < A_LOADS; i++) { // unrolled
    let p = m0 + id / GROUPS + THREADS / GROUPS * i;
    let place = p / s.n;
    py[i] = select(-0x40000000, i32(place / cols) * scale.x, p < pixels);
    px[i] = i32(place % cols) * scale.y;
    image[i] = i32((p - place * s.n) * s.in_h) * i32(s.in_w);
  }
  // The part of the map under the tile, to skip taps that lie outside of it.
  let from_place = m0 / s.n;
  let to_place = (min(m0 + ROWS, pixels) - 1) / s.n;
  let top = i32(from_place / cols) * scale.x;
  let bottom = i32(to_place / cols) * scale.x;
  let left = select(0, i32(from_place % cols), top == bottom) * scale.y;
  let right = select(i32(cols) - 1, i32(to_place % cols), top == bottom) * scale.y;

  let subgroup = id / lanes;
  let sy = subgroup / SX;
  let sx = subgroup % SX;
  var acc: array<subgroup_matrix_result<f32, N, M>, WM * WN>;
  var next_a: array<mat2x4<E>, A_LOADS>;
  var next_b: array<mat2x4<E>, B_LOADS>;
  // A bit for each of `next_a` that lies within the map.
  var within = 0u;

  let taps = s.kh * s.kw;
  let chunks = (s.in_c + DEPTH - 1) / DEPTH;
  let total = taps * chunks;
  let length = (total + s.slices - 1) / s.slices;
  let begin = min(slice * length, total);
  let end = min(begin + length, total);
  var k = begin;
  var chunk = begin / taps;
  var tap = begin - chunk * taps;
  // The tiles that the units work on.
  var current = 0u;
  var filled = false;
  loop {
    var t: Tap;
    while (k < end) {
      t = tap_offset(tap, phase);
      if (t.hit && bottom + t.y >= 0 && top + t.y < i32(s.in_h) && right + t.x >= 0 && left + t.x < i32(s.in_w)) {
        break;
      }
      k++;
      tap++;
      if (tap == taps) {
        tap = 0;
        chunk++;
      }
    }
    let more = k < end;

    // What comes next is under way while the units work on what is there.
    let c = chunk * DEPTH + id % GROUPS * 8;
    if (more) {
      within = 0u;
      for (var i = 0u; i < A_LOADS; i++) { // unrolled
        let iy = py[i] + t.y;
        let ix = px[i] + t.x;
        next_a[i] = mat2x4<E>();
        if (iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w) && c < s.in_c) {
          next_a[i] = load_a(u32((image[i] + iy * i32(s.in_w) + ix) * i32(s.in_c)) + c, s.in_c - c);
          within |= 1u << i;
        }
      }
      for (var i = 0u; i < B_LOADS; i++) { // unrolled
        let g = id + THREADS * i;
        let line = g / B_GROUPS;
        let across = g % B_GROUPS * 8;
        next_b[i] = mat2x4<E>();
        if (INPUT_GRAD) {
          let n = n0 + line;
          let kb = chunk * DEPTH + across;
          if (line < B_LINES && n < s.out_c && kb < s.in_c) {
            next_b[i] = load_b((tap * s.out_c + n) * s.in_c + kb, s.in_c - kb);
          }
        } else {
          let n = n0 + across;
          let kb = chunk * DEPTH + line;
          if (line < B_LINES && n < s.out_c && kb < s.in_c) {
            next_b[i] = load_b((tap * s.in_c + kb) * s.out_c + n, s.out_c - n);
          }
        }
      }
    }
    if (filled && subgroup < SY * SX) {
      for (var q = 0u; q < DEPTH; q += K) {
        var rows_a: array<subgroup_matrix_left<E, K, M>, WM>;
        for (var i = 0u; i < WM; i++) { // unrolled
          let start = current * A_SIZE + (sy * WM + i) * M * A_PITCH + q;
          rows_a[i] = subgroupMatrixLoad<subgroup_matrix_left<E, K, M>, row_major>(&tile_a, start / 4, A_PITCH / 4);
        }
        for (var j = 0u; j < WN; j++) { // unrolled
          var b: subgroup_matrix_right<E, N, K>;
          let n = (sx * WN + j) * N;
          if (INPUT_GRAD) {
            let start = current * B_SIZE + n * B_PITCH + q;
            b = subgroupMatrixLoad<subgroup_matrix_right<E, N, K>, col_major>(&tile_b, start / 4, B_PITCH / 4);
          } else {
            let start = current * B_SIZE + q * B_PITCH + n;
            b = subgroupMatrixLoad<subgroup_matrix_right<E, N, K>, row_major>(&tile_b, start / 4, B_PITCH / 4);
          }
          for (var i = 0u; i < WM; i++) { // unrolled
            acc[i * WN + j] = subgroupMatrixMultiplyAccumulate(rows_a[i], b, acc[i * WN + j]);
          }
        }
      }
    }
    if (!more) {
      break;
    }
    let other = (current + 1) % BUFFERS;
    if (other == current) {
      workgroupBarrier();
    }
    if (THROUGH && within != 0) {
      let values = channel_values_a(c);
      for (var i = 0u; i < A_LOADS; i++) { // unrolled
        if (((within >> i) & 1u) != 0) {
          next_a[i] = through(next_a[i], values);
        }
      }
    }
    for (var i = 0u; i < A_LOADS; i++) { // unrolled
      let g = id + THREADS * i;
      if (g < ROWS * GROUPS) {
        let to = (other * A_SIZE + g / GROUPS * A_PITCH + g % GROUPS * 8) / 4;
        tile_a[to] = next_a[i][0];
        tile_a[to + 1] = next_a[i][1];
      }
    }
    for (var i = 0u; i < B_LOADS; i++) { // unrolled
      let g = id + THREADS * i;
      if (g < B_LINES * B_GROUPS) {
        let to = (other * B_SIZE + g / B_GROUPS * B_PITCH + g % B_GROUPS * 8) / 4;
        tile_b[to] = next_b[i][0];
        tile_b[to + 1] = next_b[i][1];
      }
    }
    workgroupBarrier();
    current = other;
    filled = true;
    k++;
    tap++;
    if (tap == taps) {
      tap = 0;
      chunk++;
    }
  }

  // Through workgroup memory, since only the units know which lane holds what. A lane takes the same channels of all rows.
  workgroupBarrier();
  const ACROSS = PITCH / 8;
  let lane = id - subgroup * lanes;
  for (var j = 0u; j < SPANS; j++) { // unrolled
    let n_span = n0 + (sx * WN + j * SPAN) * N;
    if (SUMMING) {
      totals = array<mat2x4f, SUMS>();
    }
    for (var i = 0u; i < WM; i++) { // unrolled
      if (subgroup < SY * SX) {
        for (var e = 0u; e < SPAN; e++) { // unrolled
          let to = subgroup * PATCH + e * N;
          subgroupMatrixStore<row_major>(&results, to / 4, acc[i * WN + j * SPAN + e], PITCH / 4);
        }
      }
      workgroupBarrier();
      if (subgroup < SY * SX) {
        for (var g = lane % ACROSS; g < ACROSS; g += lanes) {
          let n = n_span + g * 8;
          if (n < s.out_c) {
            var values: array<array<f32, VALUES>, 8>;
            for (var c = 0u; c < 8u; c++) { // unrolled
              values[c] = channel_values(min(n + c, s.out_c - 1));
            }
            if (RELATIVE && i == 0) {
              // Rows that are there, and whose sums lie in the patches.
              let row_b: u32 = select(0u, M / 2, m0 + M / 2 < pixels);
              let row_c: u32 = select(0u, (SY - 1) * WM * M, m0 + (SY - 1) * WM * M < pixels);
              let at_a = (sx * PATCH + g * 8) / 4;
              let at_b = at_a + row_b * PITCH / 4;
              let at_c = at_a + select(0u, (SY - 1) * SX * PATCH / 4, row_c > 0);
              let a = stored_group(written[0], n, results[at_a], results[at_a + 1], values);
              let b = stored_group(written[row_b], n, results[at_b], results[at_b + 1], values);
              let c = stored_group(written[row_c], n, results[at_c], results[at_c + 1], values);
              near = mat2x4f(median(a[0], b[0], c[0]), median(a[1], b[1], c[1]));
            }
            for (var r = lane / ACROSS; r < M; r += max(lanes / ACROSS, 1)) {
              let row = (sy * WM + i) * M + r;
              if (m0 + row < pixels) {
                let from_group = (subgroup * PATCH + r * PITCH + g * 8) / 4;
                store_group(written[row], n, results[from_group], results[from_group + 1], values);
              }
            }
          }
        }
      }
      workgroupBarrier();
    }
    // The sums of the lanes of a subgroup, and then those of the subgroups, in order.
    if (SUMMING) {
      if (subgroup < SY * SX) {
        for (var apart: u32 = ACROSS; apart < lanes; apart *= 2) {
          for (var k = 0u; k < SUMS; k++) { // unrolled
            let low = subgroupShuffleXor(totals[k][0], apart);
            let high = subgroupShuffleXor(totals[k][1], apart);
            totals[k] += mat2x4f(low, high);
          }
        }
        if (lane < ACROSS) {
          for (var k = 0u; k < SUMS; k++) { // unrolled
            let to = (subgroup * PATCH + k * PITCH + lane * 8) / 4;
            results[to] = totals[k][0];
            results[to + 1] = totals[k][1];
          }
        }
      }
      workgroupBarrier();
      let n = n_span + lane * 8;
      if (subgroup < SX && lane < ACROSS && n < s.out_c) {
        for (var o = 1u; o < SY; o++) {
          for (var k = 0u; k < SUMS; k++) { // unrolled
            let from_sums = ((o * SX + sx) * PATCH + k * PITCH + lane * 8) / 4;
            totals[k] += mat2x4f(results[from_sums], results[from_sums + 1]);
          }
        }
        keep(m0 / ROWS, (pixels + ROWS - 1) / ROWS, n, f32(min(ROWS, pixels - m0)));
      }
      workgroupBarrier();
    }
  }
}
