// Weight gradient of a convolution, as an implicit GEMM for CPU drivers: as `conv_panel.wgsl`, with pixels as the terms.
// Rows are output channels, of which dy is given transposed; columns are 4 LANES HALVES input channels of one tap.
// A 1x1 convolution with fewer input than output channels exchanges the two maps: SWAPPED.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const LANES = 8u;
// A multiple of 16.
const TERMS = 32u;
const VECTORS = 4u; // TERMS / LANES
const BLOCKS = 2u; // TERMS / 16
const READS = 1u; // TERMS / (4 LANES), rounded up
const ROWS = 64u;
const HALVES = 2u;
alias A = texture_storage_2d<rgba32float, read>;
alias B = texture_storage_2d<rgba32float, read>;
alias U = f32;
const Y_BINDING = 3u;
const VALUES = 1u;
const SWAPPED = false;

// x [n, in_h, in_w, in_c filled up to a multiple of four], a = dy [out_c, filled], y = dw [slices, kh, kw, in_c, out_c];
// SWAPPED: dy in the place of x, and x in that of dy.
// The pixels of dy are ordered by place and then image. Those that a tap reaches lie in a box of the map, of which panels
// take whole texels: where images are no multiple of four, rows of the map.
// Grid: tiles of rows, tiles of columns for each tap, slices, each of which sums as many panels.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, slices: u32,
  rows: u32, filled: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var a: A;
@group(0) @binding(2) var x: B;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

var<workgroup> sums: array<vec4f, ROWS * HALVES * LANES>;

// Texel t of a tensor lies behind a row of zeros.
const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

// What `store` needs of a channel of the last axis.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(row: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[row * s.out_c + n] = U(v);
}

// The first of `places` windows that reach the map with a tap at `offset`, and the one after the last.
fn reaching(offset: i32, stride: u32, size: u32, places: u32) -> vec2u {
  let last = (i32(size + stride) - 1 - offset) / i32(stride);
  return vec2u((u32(max(-offset, 0)) + stride - 1) / stride, u32(clamp(last, 0, i32(places))));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let columns = select(s.in_c, s.out_c, SWAPPED);
  let c4 = (columns + 3) / 4;
  let tiles = (c4 + HALVES * LANES - 1) / (HALVES * LANES);
  let tap = wg.y / tiles;
  let quad = (wg.y - tap * tiles) * HALVES * LANES + lane;
  let m0 = wg.x * s.rows;
  let rows = min(s.rows, select(s.out_c, s.in_c, SWAPPED) - m0);
  let ty = i32(tap / s.kw * s.dil_h) - i32(s.pad_h);
  let tx = i32(tap % s.kw * s.dil_w) - i32(s.pad_w);
  let range_y = reaching(ty, s.stride_h, s.in_h, s.out_h);
  let range_x = reaching(tx, s.stride_w, s.in_w, s.out_w);
  let by_place = s.n % 4 == 0;
  let left = select(0, range_x.x, by_place);
  let width = select(s.out_w, max(range_x.y, range_x.x) - range_x.x, by_place);
  // The first pixel of the box, at which a texel begins, and where it ends.
  let begin = select(range_y.x * width * s.n / 4 * 4, range_y.x * width * s.n, by_place);
  let end = select(begin, range_y.y * width * s.n, range_y.x < range_y.y && range_x.x < range_x.y);
  let panels = (end - begin + TERMS - 1) / TERMS;
  let chunk = (panels + s.slices - 1) / s.slices;
  let first = min(wg.z * chunk, panels);
  let last = min(first + chunk, panels);

  // What the compiler cannot know.
  let never = s.n == 0;
  for (var k = first; k < last; k++) {
    let k0 = begin + k * TERMS;
    // The lane's pixel of each vector of the panel: the texel that its tap reads.
    var base: array<u32, VECTORS>;
    for (var e = 0u; e < VECTORS; e++) { // unrolled
      let p = k0 + e * LANES + lane;
      let place = p / s.n;
      let oy = place / width;
      let iy = i32(oy * s.stride_h) + ty;
      let ix = i32((place - oy * width + left) * s.stride_w) + tx;
      let at = (i32((p - place * s.n) * s.in_h) + iy) * i32(s.in_w) + ix;
      let inside = u32(iy) < s.in_h && u32(ix) < s.in_w && p < end;
      base[e] = select(OUTSIDE, FIRST_TEXEL + u32(at) * c4, inside);
    }
    // The panel: vector HALVES i + h holds the lane's columns of half h for pixel i.
    var panel: array<vec4f, TERMS * HALVES>;
    for (var i = 0u; i < TERMS; i++) { // unrolled
      let from_pixel = subgroupShuffle(base[i / LANES], i % LANES);
      for (var h = 0u; h < HALVES; h++) { // unrolled
        let t = select(OUTSIDE, from_pixel + quad + h * LANES, from_pixel != OUTSIDE && quad + h * LANES < c4);
        panel[i * HALVES + h] = textureLoad(x, vec2u(t & 4095, t >> 12));
      }
    }
    // The lane's four pixels of each read of a row.
    var texel: array<u32, READS>;
    for (var q = 0u; q < READS; q++) { // unrolled
      let p = k0 + (q * LANES + lane) * 4;
      let place = p / s.n;
      let oy = place / width;
      let pixel = select(p, (oy * s.out_w + place - oy * width + left) * s.n + p - place * s.n, by_place);
      texel[q] = select(OUTSIDE, FIRST_TEXEL + pixel / 4, p < end);
    }
    for (var r = 0u; r < rows; r++) {
      let row = (m0 + r) * s.filled / 4;
      var d: array<vec4f, READS>;
      for (var q = 0u; q < READS; q++) { // unrolled
        let t = select(OUTSIDE, texel[q] + row, texel[q] != OUTSIDE);
        d[q] = textureLoad(a, vec2u(t & 4095, t >> 12));
      }
      let at = r * HALVES * LANES + lane;
      var c: array<vec4f, HALVES>;
      for (var h = 0u; h < HALVES; h++) { // unrolled
        c[h] = vec4f();
        if (k > first) {
          c[h] = sums[at + h * LANES];
        }
      }
      for (var b = 0u; b < BLOCKS; b++) { // unrolled
        for (var j = 0u; j < 16u; j++) { // unrolled
          let v = vec4f(subgroupShuffle(d[(b * 16 + j) / (4 * LANES)][j % 4], (b * 16 + j) / 4 % LANES));
          for (var h = 0u; h < HALVES; h++) { // unrolled
            c[h] = fma(v, panel[(b * 16 + j) * HALVES + h], c[h]);
          }
        }
        // Else the compiler would sum one half after the other: too few independent sums to keep the processor busy.
        c[0] = select(c[0], c[HALVES - 1], never);
      }
      for (var h = 0u; h < HALVES; h++) { // unrolled
        sums[at + h * LANES] = c[h];
      }
    }
  }

  // Lanes store neighbours: columns where they are the last axis, else rows.
  workgroupBarrier();
  let is_empty = last <= first;
  let slice = wg.z * s.kh * s.kw;
  if (SWAPPED) {
    for (var r = 0u; r < rows; r++) {
      for (var h = 0u; h < HALVES; h++) {
        let v = select(sums[(r * HALVES + h) * LANES + lane], vec4f(), is_empty);
        for (var g = 0u; g < 4; g++) {
          let n = (quad + h * LANES) * 4 + g;
          if (n < columns) {
            store(slice * s.in_c + m0 + r, n, v[g], channel_values(n));
          }
        }
      }
    }
  } else {
    for (var r = lane; r < rows; r += LANES) {
      for (var q = 0u; q < min(HALVES * LANES, c4 - (quad - lane)); q++) {
        let v = select(sums[r * HALVES * LANES + q], vec4f(), is_empty);
        for (var g = 0u; g < 4; g++) {
          let n = (quad - lane + q) * 4 + g;
          if (n < columns) {
            store((slice + tap) * s.in_c + n, m0 + r, v[g], channel_values(m0 + r));
          }
        }
      }
    }
  }
}
