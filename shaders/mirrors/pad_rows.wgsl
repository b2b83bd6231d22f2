// y [planes, y_rows, y_columns] = x [planes, rows, columns] with zeros behind its rows and columns; y_columns is a multiple of four.
alias T = f32;
struct Shape { rows: u32, columns: u32, y_rows: u32, y_quads: u32, count: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<T>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * s.grid_x + wg.x) * 64 + lane;
  if (i >= s.count) {
    return;
  }
  let line = i / s.y_quads;
  let column = (i - line * s.y_quads) * 4;
  let plane = line / s.y_rows;
  let row = line - plane * s.y_rows;
  let from_row = (plane * s.rows + row) * s.columns;
  var v = vec4<T>();
  for (var k = 0u; k < 4u; k++) { // unrolled
    if (row < s.rows && column + k < s.columns) {
      v[k] = x[from_row + column + k];
    }
  }
  y[i] = v;
}
