// y [batch, M, N] = a [batch, M, K] times b [batch, K, N], either of them with its last two axes exchanged.
// A workgroup owns a tile of TY * R rows by 4 * TX * C columns and walks along K, TERMS at a time; a thread owns R rows by
// 4 * C columns in registers. Grid: tiles of rows, tiles of columns, batch.
const TX = 8u;
const TY = 8u;
const R = 4u;
const C = 1u;
const TERMS = 16u;
const TRANSPOSE_A = false;
const TRANSPOSE_B = false;
alias A = f32;
alias B = f32;
alias U = f32;

struct Uniforms { m: u32, k: u32, n: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> b: array<B>;
@group(0) @binding(3) var<storage, read_write> y: array<U>;

const ROWS = TY * R;
const COLUMNS = 4 * TX * C;
var<workgroup> tile_a: array<f32, TERMS * ROWS>;
var<workgroup> tile_b: array<f32, TERMS * COLUMNS>;

@compute @workgroup_size(TX * TY)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let m0 = wg.x * ROWS;
  let n0 = wg.y * COLUMNS;
  let a0 = wg.z * u.m * u.k;
  let b0 = wg.z * u.k * u.n;
  let tx = id % TX;
  let ty = id / TX;
  var acc: array<array<vec4f, C>, R>;
  for (var k0 = 0u; k0 < u.k; k0 += TERMS) {
    // Neighbouring threads load neighbours along the axis that is the last one in memory.
    for (var i = id; i < TERMS * ROWS; i += TX * TY) {
      let term = select(i % TERMS, i / ROWS, TRANSPOSE_A);
      let row = select(i / TERMS, i % ROWS, TRANSPOSE_A);
      let k = k0 + term;
      let m = m0 + row;
      var value = 0f;
      if (k < u.k && m < u.m) {
        value = f32(a[a0 + select(m * u.k + k, k * u.m + m, TRANSPOSE_A)]);
      }
      tile_a[term * ROWS + row] = value;
    }
    for (var i = id; i < TERMS * COLUMNS; i += TX * TY) {
      let term = select(i / COLUMNS, i % TERMS, TRANSPOSE_B);
      let column = select(i % COLUMNS, i / TERMS, TRANSPOSE_B);
      let k = k0 + term;
      let n = n0 + column;
      var value = 0f;
      if (k < u.k && n < u.n) {
        value = f32(b[b0 + select(k * u.n + n, n * u.k + k, TRANSPOSE_B)]);
      }
      tile_b[term * COLUMNS + column] = value;
    }
    workgroupBarrier();
    for (var term = 0u; term < TERMS; term++) {
      var columns: array<vec4f, C>;
      for (var j = 0u; j < C; j++) { // unrolled
        let at = term * COLUMNS + tx + 4u * TX * j;
        columns[j] = vec4f(tile_b[at], tile_b[at + TX], tile_b[at + 2u * TX], tile_b[at + 3u * TX]);
      }
      for (var r = 0u; r < R; r++) { // unrolled
        let value = tile_a[term * ROWS + ty + TY * r];
        for (var j = 0u; j < C; j++) { // unrolled
          acc[r][j] += value * columns[j];
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < R; r++) { // unrolled
    let m = m0 + ty + TY * r;
    for (var j = 0u; j < C; j++) { // unrolled
      for (var i = 0u; i < 4u; i++) { // unrolled
        let n = n0 + tx + TX * (4u * j + i);
        if (m < u.m && n < u.n) {
          y[(wg.z * u.m + m) * u.n + n] = U(acc[r][j][i]);
        }
      }
    }
  }
}
