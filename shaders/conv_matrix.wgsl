// Convolution, its input gradient and the matrix product, as an implicit GEMM on matrix units: f16 by f16, added up in f32.
// A workgroup of SY by SX subgroups owns SY * WM * M pixels by SX * WN * N output channels, and walks over its slice of the
// sum, DEPTH channels of one tap at a time, which all its threads bring to workgroup memory.
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
// Matrices of a subgroup.
const WM = 2u;
const WN = 2u;
const DEPTH = 32u;
alias A = f16;
alias B = f16;
alias U = f32;
const INPUT_GRAD = false;
const Y_BINDING = 3u;
const VALUES = 1u;

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
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

const THREADS = SY * SX * LANES;
const ROWS = SY * WM * M;
const COLUMNS = SX * WN * N;
// Groups of eight elements in a line of a tile, and groups that a thread loads. Lines are padded by a group, so that the
// rows of a matrix lie in different banks.
const GROUPS = DEPTH / 8;
const B_GROUPS = select(COLUMNS / 8, GROUPS, INPUT_GRAD);
const B_LINES = select(DEPTH, COLUMNS, INPUT_GRAD);
const A_LOADS = (ROWS * GROUPS + THREADS - 1) / THREADS;
const B_LOADS = (B_LINES * B_GROUPS + THREADS - 1) / THREADS;
const A_PITCH = DEPTH + 8;
const B_PITCH = B_GROUPS * 8 + 8;
var<workgroup> tile_a: array<vec4h, ROWS * A_PITCH / 4>;
// As the weights lie in memory: lines of output channels, or of inner ones in the input gradient.
var<workgroup> tile_b: array<vec4h, B_LINES * B_PITCH / 4>;
// A row of matrices of each row of subgroups.
const PITCH = COLUMNS + 8;
var<workgroup> results: array<f32, SY * M * PITCH>;
// Where the tile's pixels are written.
var<workgroup> written: array<u32, ROWS>;

// Elements i to i + 7, of which the first `count` exist. Where all rows are whole multiples of 8, the loader replaces
// the alias by `vec4u` and the body by one load.
fn load_a(i: u32, count: u32) -> mat2x4h {
  let low = vec4h(f16(a[i]), f16(a[i + 1]), f16(a[i + 2]), f16(a[i + 3]));
  let high = vec4h(f16(a[i + 4]), f16(a[i + 5]), f16(a[i + 6]), f16(a[i + 7]));
  return mat2x4h(
    select(vec4h(), low, vec4u(0, 1, 2, 3) < vec4u(count)),
    select(vec4h(), high, vec4u(4, 5, 6, 7) < vec4u(count)),
  );
}

fn load_b(i: u32, count: u32) -> mat2x4h {
  let low = vec4h(f16(w[i]), f16(w[i + 1]), f16(w[i + 2]), f16(w[i + 3]));
  let high = vec4h(f16(w[i + 4]), f16(w[i + 5]), f16(w[i + 6]), f16(w[i + 7]));
  return mat2x4h(
    select(vec4h(), low, vec4u(0, 1, 2, 3) < vec4u(count)),
    select(vec4h(), high, vec4u(4, 5, 6, 7) < vec4u(count)),
  );
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
  for (var i = 0u; i < A_LOADS; i++) {
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
  var next_a: array<mat2x4h, A_LOADS>;
  var next_b: array<mat2x4h, B_LOADS>;
  // First element of each pixel under the tap, negative outside the map.
  var at: array<i32, A_LOADS>;

  let chunks = (s.in_c + DEPTH - 1) / DEPTH;
  let total = s.kh * s.kw * chunks;
  let length = (total + s.slices - 1) / s.slices;
  let begin = min(slice * length, total);
  let end = min(begin + length, total);
  var tap = begin / chunks;
  var chunk = begin - tap * chunks;
  var entered = false;
  var filled = false;
  var k = begin;
  loop {
    while (k < end) {
      if (chunk == chunks) {
        chunk = 0;
        tap++;
        entered = false;
      }
      if (entered) {
        break;
      }
      entered = true;
      let t = tap_offset(tap, phase);
      if (!t.hit || bottom + t.y < 0 || top + t.y >= i32(s.in_h) || right + t.x < 0 || left + t.x >= i32(s.in_w)) {
        k += chunks - chunk;
        chunk = chunks;
        continue;
      }
      for (var i = 0u; i < A_LOADS; i++) {
        let iy = py[i] + t.y;
        let ix = px[i] + t.x;
        let inside = iy >= 0 && iy < i32(s.in_h) && ix >= 0 && ix < i32(s.in_w);
        at[i] = select(-1, (image[i] + iy * i32(s.in_w) + ix) * i32(s.in_c), inside);
      }
    }
    let more = k < end;

    // What comes next is under way while the units work on what is there.
    if (more) {
      let c = chunk * DEPTH + id % GROUPS * 8;
      for (var i = 0u; i < A_LOADS; i++) {
        next_a[i] = mat2x4h();
        if (at[i] >= 0 && c < s.in_c) {
          next_a[i] = load_a(u32(at[i]) + c, s.in_c - c);
        }
      }
      for (var i = 0u; i < B_LOADS; i++) {
        let g = id + THREADS * i;
        let line = g / B_GROUPS;
        let across = g % B_GROUPS * 8;
        next_b[i] = mat2x4h();
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
        var rows_a: array<subgroup_matrix_left<f16, K, M>, WM>;
        for (var i = 0u; i < WM; i++) {
          let start = (sy * WM + i) * M * A_PITCH + q;
          rows_a[i] = subgroupMatrixLoad<subgroup_matrix_left<f16, K, M>, row_major>(&tile_a, start / 4, A_PITCH / 4);
        }
        for (var j = 0u; j < WN; j++) {
          var b: subgroup_matrix_right<f16, N, K>;
          let n = (sx * WN + j) * N;
          if (INPUT_GRAD) {
            let start = n * B_PITCH + q;
            b = subgroupMatrixLoad<subgroup_matrix_right<f16, N, K>, col_major>(&tile_b, start / 4, B_PITCH / 4);
          } else {
            let start = q * B_PITCH + n;
            b = subgroupMatrixLoad<subgroup_matrix_right<f16, N, K>, row_major>(&tile_b, start / 4, B_PITCH / 4);
          }
          for (var i = 0u; i < WM; i++) {
            acc[i * WN + j] = subgroupMatrixMultiplyAccumulate(rows_a[i], b, acc[i * WN + j]);
          }
        }
      }
    }
    workgroupBarrier();
    if (!more) {
      break;
    }
    for (var i = 0u; i < A_LOADS; i++) {
      let g = id + THREADS * i;
      if (g < ROWS * GROUPS) {
        let to = (g / GROUPS * A_PITCH + g % GROUPS * 8) / 4;
        tile_a[to] = next_a[i][0];
        tile_a[to + 1] = next_a[i][1];
      }
    }
    for (var i = 0u; i < B_LOADS; i++) {
      let g = id + THREADS * i;
      if (g < B_LINES * B_GROUPS) {
        let to = (g / B_GROUPS * B_PITCH + g % B_GROUPS * 8) / 4;
        tile_b[to] = next_b[i][0];
        tile_b[to + 1] = next_b[i][1];
      }
    }
    workgroupBarrier();
    filled = true;
    k++;
    chunk++;
  }

  // A row of matrices at a time, since only their subgroups know which lane holds what.
  const LINE = min(THREADS, COLUMNS);
  for (var i = 0u; i < WM; i++) {
    if (subgroup < SY * SX) {
      for (var j = 0u; j < WN; j++) {
        let to = sy * M * PITCH + (sx * WN + j) * N;
        subgroupMatrixStore<row_major>(&results, to, acc[i * WN + j], PITCH);
      }
    }
    workgroupBarrier();
    for (var column = id % LINE; column < COLUMNS; column += LINE) {
      let n = n0 + column;
      if (n < s.out_c) {
        let values = channel_values(n);
        for (var r = id / LINE; r < SY * M; r += THREADS / LINE) {
          let row = r / M * WM * M + i * M + r % M;
          if (m0 + row < pixels) {
            store(written[row], n, results[r * PITCH + column], values);
          }
        }
      }
    }
    workgroupBarrier();
  }
}
