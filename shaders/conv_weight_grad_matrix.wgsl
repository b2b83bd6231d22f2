// Weight gradient of a convolution, as an implicit GEMM on matrix units, added up in f32.
// A workgroup of SY by SX subgroups owns SY * WM * M rows (tap and input channel, the channels filled up to a multiple of
// 8) by SX * WN * N output channels and sums over a slice of the pixels, DEPTH at a time, which all its threads bring to
// workgroup memory.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
// What the units are given depends on the subgroup alone, and so does whether they run.
diagnostic(off, chromium.subgroup_matrix_uniformity);

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
const Y_BINDING = 3u;
const VALUES = 1u;
// Whether what is read of x passes through a formula on its way to workgroup memory, and how many values this takes of a
// channel.
const THROUGH = false;
const A_VALUES = 1u;

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
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<Y>;

const THREADS = SY * SX * LANES;
const ROWS = SY * WM * M;
const COLUMNS = SX * WN * N;
// Groups of eight elements in a line of a tile, which is a pixel. Lines are padded by a group, so that those of a matrix lie
// in different banks.
const A_GROUPS = ROWS / 8;
const B_GROUPS = COLUMNS / 8;
// Whether all that a thread loads of a tile of `x` is of the same channels.
const SAME_CHANNELS = THREADS % A_GROUPS == 0;
const A_PITCH = ROWS + 8;
const B_PITCH = COLUMNS + 8;
const A_SIZE = DEPTH * A_PITCH;
const B_SIZE = DEPTH * B_PITCH;
var<workgroup> tile_a: array<vec4<E>, BUFFERS * A_SIZE / 4>;
var<workgroup> tile_b: array<vec4<E>, BUFFERS * B_SIZE / 4>;
// A patch of matrices of each subgroup, which alone reads it.
const PITCH = SPAN * N;
const PATCH = M * PITCH;
var<workgroup> results: array<vec4f, SY * SX * PATCH / 4>;

// Elements i to i + 7, of which the first `count` exist. Where all rows are whole multiples of 8, the loader replaces
// the alias by a vector of 16 bytes, and the body by loads of those.
fn load_a(i: u32, count: u32) -> mat2x4<E> {
  let low = vec4<E>(E(x[i]), E(x[i + 1]), E(x[i + 2]), E(x[i + 3]));
  let high = vec4<E>(E(x[i + 4]), E(x[i + 5]), E(x[i + 6]), E(x[i + 7]));
  return mat2x4<E>(
    select(vec4<E>(), low, vec4u(0, 1, 2, 3) < vec4u(count)),
    select(vec4<E>(), high, vec4u(4, 5, 6, 7) < vec4u(count)),
  );
}

fn load_b(i: u32, count: u32) -> mat2x4<E> {
  let low = vec4<E>(E(dy[i]), E(dy[i + 1]), E(dy[i + 2]), E(dy[i + 3]));
  let high = vec4<E>(E(dy[i + 4]), E(dy[i + 5]), E(dy[i + 6]), E(dy[i + 7]));
  return mat2x4<E>(
    select(vec4<E>(), low, vec4u(0, 1, 2, 3) < vec4u(count)),
    select(vec4<E>(), high, vec4u(4, 5, 6, 7) < vec4u(count)),
  );
}

// What `through` needs of eight channels from c on.
fn channel_values_a(c: u32) -> array<array<f32, A_VALUES>, 8> {
  return array<array<f32, A_VALUES>, 8>();
}

// Eight channels of x, as the units get them.
fn through(v: mat2x4<E>, values: array<array<f32, A_VALUES>, 8>) -> mat2x4<E> {
  return v;
}

// What `store` needs of an output channel.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(row: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[row * s.out_c + n] = U(v);
}

// Eight channels from n on of a row, a tap and input channel of a slice. Where their number is a multiple of 8, the loader
// replaces this by stores of 16 bytes.
fn store_group(row: u32, n: u32, low: vec4f, high: vec4f, values: array<array<f32, VALUES>, 8>) {
  for (var k = 0u; k < 4u; k++) { // unrolled
    if (n + k < s.out_c) {
      store(row, n + k, low[k], values[k]);
    }
  }
  for (var k = 0u; k < 4u; k++) { // unrolled
    if (n + 4 + k < s.out_c) {
      store(row, n + 4 + k, high[k], values[k + 4]);
    }
  }
}

// The first of `places` windows that reach the map with a tap at `offset`, and the one after the last.
fn reaching(offset: i32, stride: u32, size: u32, places: u32) -> vec2u {
  let last = (i32(size + stride) - 1 - offset) / i32(stride);
  return vec2u((u32(max(-offset, 0)) + stride - 1) / stride, u32(clamp(last, 0, i32(places))));
}

fn tap_offset(tap: u32) -> vec2i {
  let ky = tap / s.kw;
  return vec2i(vec2u(ky * s.dil_h, (tap - ky * s.kw) * s.dil_w)) - vec2i(vec2u(s.pad_h, s.pad_w));
}

// A place (image, y, x) of the box, a step further.
fn moved(at: vec3u, step: vec3u, width: u32, height: u32) -> vec3u {
  var next = at + step;
  let end_x = next.z >= width;
  next.z -= select(0, width, end_x);
  next.y += u32(end_x);
  let end_y = next.y >= height;
  next.y -= select(0, height, end_y);
  next.x += u32(end_y);
  return next;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(local_invocation_index) id: u32,
  @builtin(subgroup_size) lanes: u32,
) {
  let groups = (s.in_c + 7) / 8;
  let total = s.kh * s.kw * groups;
  let m0 = wg.x * A_GROUPS;
  let n0 = wg.y * COLUMNS;

  // The pixels that any of the tile's taps reads lie in a box of the map.
  var low = vec2u(s.out_h, s.out_w);
  var high = vec2u(0);
  for (var tap = m0 / groups; tap <= (min(m0 + A_GROUPS, total) - 1) / groups; tap++) {
    let offset = tap_offset(tap);
    let y_range = reaching(offset.x, s.stride_h, s.in_h, s.out_h);
    let x_range = reaching(offset.y, s.stride_w, s.in_w, s.out_w);
    if (y_range.x < y_range.y && x_range.x < x_range.y) {
      low = min(low, vec2u(y_range.x, x_range.x));
      high = max(high, vec2u(y_range.y, x_range.y));
    }
  }
  high = max(high, low);
  let height = high.x - low.x;
  let width = high.y - low.y;
  let area = max(width * height, 1);
  let pixels = s.n * height * width;
  let length = (pixels + s.slices - 1) / s.slices;
  let begin = min(wg.z * length, pixels);
  let end = min(begin + length, pixels);

  // What this thread loads of the rows: their taps and channels stay, and it moves DEPTH pixels ahead each time.
  let step = vec3u(DEPTH / area, DEPTH % area / max(width, 1), DEPTH % max(width, 1));
  var offset: array<vec2i, A_LOADS>;
  var channel: array<u32, A_LOADS>;
  var at_a: array<vec3u, A_LOADS>;
  for (var i = 0u; i < A_LOADS; i++) { // unrolled
    let g = id + THREADS * i;
    let row = m0 + g % A_GROUPS;
    let tap = row / groups;
    offset[i] = select(vec2i(-0x40000000), tap_offset(tap), row < total && g < DEPTH * A_GROUPS);
    channel[i] = (row - tap * groups) * 8;
    let p = begin + g / A_GROUPS;
    at_a[i] = vec3u(p / area, p % area / max(width, 1), p % max(width, 1));
  }
  var at_b: array<vec3u, B_LOADS>;
  for (var i = 0u; i < B_LOADS; i++) { // unrolled
    let p = begin + (id + THREADS * i) / B_GROUPS;
    at_b[i] = vec3u(p / area, p % area / max(width, 1), p % max(width, 1));
  }

  let subgroup = id / lanes;
  let sy = subgroup / SX;
  let sx = subgroup % SX;
  var acc: array<subgroup_matrix_result<f32, N, M>, WM * WN>;
  var next_a: array<mat2x4<E>, A_LOADS>;
  var next_b: array<mat2x4<E>, B_LOADS>;
  // A bit for each of `next_a` that lies within the map.
  var within = 0u;
  // The tiles that the units work on.
  var current = 0u;
  for (var k = begin; ; k += DEPTH) {
    let more = k < end;
    // What comes next is under way while the units work on what is there.
    if (more) {
      within = 0u;
      for (var i = 0u; i < A_LOADS; i++) { // unrolled
        let y = i32((at_a[i].y + low.x) * s.stride_h) + offset[i].x;
        let x = i32((at_a[i].z + low.y) * s.stride_w) + offset[i].y;
        next_a[i] = mat2x4<E>();
        let there = k + (id + THREADS * i) / A_GROUPS < end;
        if (there && y >= 0 && y < i32(s.in_h) && x >= 0 && x < i32(s.in_w)) {
          let pixel = (at_a[i].x * s.in_h + u32(y)) * s.in_w + u32(x);
          next_a[i] = load_a(pixel * s.in_c + channel[i], s.in_c - channel[i]);
          within |= 1u << i;
        }
        at_a[i] = moved(at_a[i], step, width, height);
      }
      for (var i = 0u; i < B_LOADS; i++) { // unrolled
        let g = id + THREADS * i;
        let n = n0 + g % B_GROUPS * 8;
        next_b[i] = mat2x4<E>();
        if (g < DEPTH * B_GROUPS && k + g / B_GROUPS < end && n < s.out_c) {
          let pixel = (at_b[i].x * s.out_h + at_b[i].y + low.x) * s.out_w + at_b[i].z + low.y;
          next_b[i] = load_b(pixel * s.out_c + n, s.out_c - n);
        }
        at_b[i] = moved(at_b[i], step, width, height);
      }
    }
    if (k > begin && subgroup < SY * SX) {
      for (var q = 0u; q < DEPTH; q += K) {
        var rows_a: array<subgroup_matrix_left<E, K, M>, WM>;
        for (var i = 0u; i < WM; i++) { // unrolled
          let start = current * A_SIZE + q * A_PITCH + (sy * WM + i) * M;
          rows_a[i] = subgroupMatrixLoad<subgroup_matrix_left<E, K, M>, col_major>(&tile_a, start / 4, A_PITCH / 4);
        }
        for (var j = 0u; j < WN; j++) { // unrolled
          let start = current * B_SIZE + q * B_PITCH + (sx * WN + j) * N;
          let b = subgroupMatrixLoad<subgroup_matrix_right<E, N, K>, row_major>(&tile_b, start / 4, B_PITCH / 4);
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
      var values: array<array<f32, A_VALUES>, 8>;
      for (var i = 0u; i < A_LOADS; i++) { // unrolled
        if (i == 0 || !SAME_CHANNELS) {
          values = channel_values_a(channel[i]);
        }
        if (((within >> i) & 1u) != 0) {
          next_a[i] = through(next_a[i], values);
        }
      }
    }
    for (var i = 0u; i < A_LOADS; i++) { // unrolled
      let g = id + THREADS * i;
      if (g < DEPTH * A_GROUPS) {
        let to = (other * A_SIZE + g / A_GROUPS * A_PITCH + g % A_GROUPS * 8) / 4;
        tile_a[to] = next_a[i][0];
        tile_a[to + 1] = next_a[i][1];
      }
    }
    for (var i = 0u; i < B_LOADS; i++) { // unrolled
      let g = id + THREADS * i;
      if (g < DEPTH * B_GROUPS) {
        let to = (other * B_SIZE + g / B_GROUPS * B_PITCH + g % B_GROUPS * 8) / 4;
        tile_b[to] = next_b[i][0];
        tile_b[to + 1] = next_b[i][1];
      }
    }
    workgroupBarrier();
    current = other;
  }

  // Through workgroup memory, since only the units know which lane holds what.
  workgroupBarrier();
  const ACROSS = PITCH / 8;
  let lane = id - subgroup * lanes;
  for (var i = 0u; i < WM; i++) { // unrolled
    for (var j = 0u; j < SPANS; j++) { // unrolled
      if (subgroup < SY * SX) {
        for (var e = 0u; e < SPAN; e++) { // unrolled
          let to = subgroup * PATCH + e * N;
          subgroupMatrixStore<row_major>(&results, to / 4, acc[i * WN + j * SPAN + e], PITCH / 4);
        }
      }
      workgroupBarrier();
      if (subgroup < SY * SX) {
        for (var g = lane; g < M * ACROSS; g += lanes) {
          let r = g / ACROSS;
          let filled = m0 * 8 + (sy * WM + i) * M + r;
          let tap = filled / 8 / groups;
          let c = filled - tap * groups * 8;
          let n = n0 + (sx * WN + j * SPAN) * N + g % ACROSS * 8;
          if (filled < total * 8 && c < s.in_c && n < s.out_c) {
            let from_group = (subgroup * PATCH + r * PITCH + g % ACROSS * 8) / 4;
            let row = (wg.z * s.kh * s.kw + tap) * s.in_c + c;
            var values: array<array<f32, VALUES>, 8>;
            for (var e = 0u; e < 8u; e++) { // unrolled
              values[e] = channel_values(min(n + e, s.out_c - 1));
            }
            store_group(row, n, results[from_group], results[from_group + 1], values);
          }
        }
      }
      workgroupBarrier();
    }
  }
}
