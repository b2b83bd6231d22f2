// y [planes, columns, rows] = x [planes, rows, columns] with its last two axes exchanged.
// Grid: tiles of 64 rows, tiles of PER_THREAD columns, planes.
const PER_THREAD: u32 = 16;
alias T = f32;
alias U = f32;
struct Shape { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x * 64 + lane;
  if (row >= s.rows) {
    return;
  }
  let plane = wg.z * s.rows * s.columns;
  let first = wg.y * PER_THREAD;
  for (var column = first; column < min(first + PER_THREAD, s.columns); column++) {
    y[plane + column * s.rows + row] = U(x[plane + row * s.columns + column]);
  }
}
