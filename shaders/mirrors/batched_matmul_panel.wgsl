// y [batch, rows, columns] = a [batch, filled, terms] times b [batch, terms, columns], terms and columns multiples of four, for
// CPU drivers: in panels of b as in `conv_panel.wgsl`, both factors mirrors. The terms of a panel are summed
// by themselves before they are added to those of others, which keeps errors small.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const LANES = 8u;
// A multiple of 16.
const TERMS = 32u;
const BLOCKS = 2u; // TERMS / 16
const READS = 1u; // TERMS / (4 LANES), rounded up
const ROWS = 64u;
const HALVES = 2u;

// Where `added`, to what y holds. Grid: tiles of rows_each rows, tiles of columns, batch.
struct Shape { rows: u32, filled: u32, terms: u32, columns: u32, rows_each: u32, added: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var a: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var b: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

var<workgroup> sums: array<vec4f, ROWS * HALVES * LANES>;

// Texel t of a tensor lies behind a row of zeros.
const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let m0 = wg.x * s.rows_each;
  if (m0 >= s.rows) {
    return;
  }
  let rows = min(s.rows_each, s.rows - m0);
  let terms4 = s.terms / 4;
  let columns4 = s.columns / 4;
  let quad = wg.y * HALVES * LANES + lane;
  // What the compiler cannot know.
  let never = s.rows == 0;
  for (var k0 = 0u; k0 < s.terms; k0 += TERMS) {
    var panel: array<vec4f, TERMS * HALVES>;
    let base_b = FIRST_TEXEL + (wg.z * s.terms + k0) * columns4 + quad;
    for (var i = 0u; i < TERMS; i++) { // unrolled
      for (var h = 0u; h < HALVES; h++) { // unrolled
        let t = select(OUTSIDE, base_b + i * columns4 + h * LANES, k0 + i < s.terms && quad + h * LANES < columns4);
        panel[i * HALVES + h] = textureLoad(b, vec2u(t & 4095, t >> 12));
      }
    }
    let base_a = FIRST_TEXEL + (wg.z * s.filled + m0) * terms4 + k0 / 4 + lane;
    for (var r = 0u; r < rows; r++) {
      var x: array<vec4f, READS>;
      for (var q = 0u; q < READS; q++) { // unrolled
        let t = select(OUTSIDE, base_a + r * terms4 + q * LANES, k0 / 4 + q * LANES + lane < terms4);
        x[q] = textureLoad(a, vec2u(t & 4095, t >> 12));
      }
      var c: array<vec4f, HALVES>;
      for (var h = 0u; h < HALVES; h++) { // unrolled
        c[h] = vec4f();
      }
      for (var e = 0u; e < BLOCKS; e++) { // unrolled
        for (var j = 0u; j < 16u; j++) { // unrolled
          let v = vec4f(subgroupShuffle(x[(e * 16 + j) / (4 * LANES)][j % 4], (e * 16 + j) / 4 % LANES));
          for (var h = 0u; h < HALVES; h++) { // unrolled
            c[h] = fma(v, panel[(e * 16 + j) * HALVES + h], c[h]);
          }
        }
        // Else the compiler would sum one half after the other: too few independent sums to keep the processor busy.
        c[0] = select(c[0], c[HALVES - 1], never);
      }
      let at = r * HALVES * LANES + lane;
      for (var h = 0u; h < HALVES; h++) { // unrolled
        if (k0 > 0) {
          c[h] += sums[at + h * LANES];
        }
        sums[at + h * LANES] = c[h];
      }
    }
  }
  for (var r = 0u; r < rows; r++) {
    for (var h = 0u; h < HALVES; h++) {
      if (quad + h * LANES < columns4) {
        let at = (wg.z * s.rows + m0 + r) * columns4 + quad + h * LANES;
        var v = sums[(r * HALVES + h) * LANES + lane];
        if (s.added != 0) {
          v += y[at];
        }
        y[at] = v;
      }
    }
  }
}
