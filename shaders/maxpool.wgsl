// Max pooling: x [N, H, W, C] → y, tap [N, OH, OW, C]. Padding is −∞; `tap` is the first maximum in row-major order.
// A thread walks along a chunk of a row of y and keeps the maxima of the columns that the next window shares.
const KERNEL: u32 = 3;
const STRIDE: u32 = 2;
const KEPT: u32 = max(KERNEL, STRIDE) - STRIDE;
alias T = f32;
alias U = f32;
alias V = f32;
alias I = u32;

struct Uniforms {
  threads: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  padding: u32, chunks: u32, per_chunk: u32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;
@group(0) @binding(3) var<storage, read_write> tap: array<u32>;

fn pack_tap(value: I) -> u32 {
  return value;
}

/// The maximum of a column of a window, and its row there.
struct Column { value: V, row: I }

/// A column outside of the map counts as its border, but in rows so far down that it never wins.
const OUTSIDE: u32 = 65536;

fn column_at(w: i32, top: u32, row: u32, rows: u32) -> Column {
  let inside = clamp(w, 0, i32(u.x_width) - 1);
  let pitch = u.x_width * u.channels;
  var i = top + u32(inside) * u.channels;
  var best = Column(V(x[i]), I(row));
  for (var k = 1u; k < KERNEL; k++) {
    // Below the map the last row is seen again, which changes nothing.
    i += select(0u, pitch, k < rows);
    let value = V(x[i]);
    let better = value > best.value;
    best.value = select(best.value, value, better);
    best.row = select(best.row, I(row + k), better);
  }
  best.row += select(OUTSIDE, 0u, w == inside);
  return best;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (group.x + group.y * u.grid_x) * 64u + lane;
  if (thread >= u.threads) {
    return;
  }
  let channels = u.channels;
  let place = thread / channels;
  let c = thread - place * channels;
  let line = place / u.chunks;
  let n = line / u.y_height;
  let top = i32((line - n * u.y_height) * STRIDE) - i32(u.padding);
  let first = u32(max(top, 0));
  let rows = u32(min(top + i32(KERNEL), i32(u.x_height))) - first;
  let start = (n * u.x_height + first) * u.x_width * channels + c;
  let row = u32(i32(first) - top);

  var ow = (place - line * u.chunks) * u.per_chunk;
  let end = min(ow + u.per_chunk, u.y_width);
  var i = (line * u.y_width + ow) * channels + c;
  var left = i32(ow * STRIDE) - i32(u.padding);
  var columns: array<Column, KERNEL>;
  for (var k = 0u; k < KEPT; k++) {
    columns[k] = column_at(left + i32(k), start, row, rows);
  }
  for (; ow < end; ow++) {
    for (var k = KEPT; k < KERNEL; k++) {
      columns[k] = column_at(left + i32(k), start, row, rows);
    }
    var best = columns[0];
    var best_column = I();
    for (var k = 1u; k < KERNEL; k++) {
      let other = columns[k];
      let better = (other.value > best.value) | ((other.value == best.value) & (other.row < best.row));
      best.value = select(best.value, other.value, better);
      best.row = select(best.row, other.row, better);
      best_column = select(best_column, I(k), better);
    }
    y[i] = U(best.value);
    tap[i] = pack_tap(best.row * KERNEL + best_column);
    i += channels;
    left += i32(STRIDE);
    for (var k = 0u; k < KEPT; k++) {
      columns[k] = columns[k + STRIDE];
    }
  }
}
