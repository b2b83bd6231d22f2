// Gradient of max pooling: a block of STRIDE × STRIDE input pixels gathers from the windows whose maximum they were. A
// thread walks along a chunk of a row of blocks and keeps the windows that the next block shares.
const KERNEL: u32 = 3;
const STRIDE: u32 = 2;
/// Windows along one axis that cover a block.
const REACH: u32 = (KERNEL + STRIDE - 1) / STRIDE;
alias T = f32;
alias U = f32;
alias V = f32;
alias I = u32;

struct Uniforms {
  threads: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  padding: u32, chunks: u32, per_chunk: u32, grid_x: u32, block_rows: u32, block_columns: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<T>;
@group(0) @binding(2) var<storage, read> tap: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<U>;

fn unpack_tap(value: u32) -> I {
  return value;
}

struct Window { gradient: V, tap: I }

fn window_at(line: u32, row: i32, column: i32, c: u32) -> Window {
  if (row < 0 || row >= i32(u.y_height) || column < 0 || column >= i32(u.y_width)) {
    return Window(V(), I(0xffffffffu));
  }
  let i = ((line * u.y_height + u32(row)) * u.y_width + u32(column)) * u.channels + c;
  return Window(V(dy[i]), unpack_tap(tap[i]));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (group.x + group.y * u.grid_x) * 64u + lane;
  if (thread >= u.threads) {
    return;
  }
  let place = thread / u.channels;
  let c = thread - place * u.channels;
  let line = place / u.chunks;
  let n = line / u.block_rows;
  let block_row = i32(line - n * u.block_rows);
  var block = i32((place - line * u.chunks) * u.per_chunk);
  let end = min(block + i32(u.per_chunk), i32(u.block_columns));
  // windows[r * REACH + s] is r rows above and s columns before the block's own.
  var windows: array<Window, REACH * REACH>;
  for (var r = 0u; r < REACH; r++) {
    for (var s = 1u; s < REACH; s++) {
      windows[r * REACH + s - 1u] = window_at(n, block_row - i32(r), block - i32(s), c);
    }
  }
  for (; block < end; block++) {
    for (var r = 0u; r < REACH; r++) {
      for (var s = REACH - 1u; s > 0u; s--) {
        windows[r * REACH + s] = windows[r * REACH + s - 1u];
      }
      windows[r * REACH] = window_at(n, block_row - i32(r), block, c);
    }
    for (var p = 0u; p < STRIDE; p++) {
      for (var q = 0u; q < STRIDE; q++) {
        var total = V();
        for (var r = 0u; r < REACH; r++) {
          for (var s = 0u; s < REACH; s++) {
            let row = p + r * STRIDE;
            let column = q + s * STRIDE;
            if (row < KERNEL && column < KERNEL) {
              let window = windows[r * REACH + s];
              total += select(V(), window.gradient, window.tap == I(row * KERNEL + column));
            }
          }
        }
        let h = block_row * i32(STRIDE) + i32(p) - i32(u.padding);
        let w = block * i32(STRIDE) + i32(q) - i32(u.padding);
        if (h >= 0 && h < i32(u.x_height) && w >= 0 && w < i32(u.x_width)) {
          dx[((n * u.x_height + u32(h)) * u.x_width + u32(w)) * u.channels + c] = U(total);
        }
      }
    }
  }
}
