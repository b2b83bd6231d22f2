// Max pooling: x [N, H, W, C] → y, tap [N, OH, OW, C]. Padding is −∞; `tap` is the first maximum in row-major order.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;

struct Uniforms {
  rows: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  kernel: u32, stride: u32, padding: u32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;
@group(0) @binding(3) var<storage, read_write> tap: array<u32>;

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.x + group.y * u.grid_x) * HEIGHT + local.y;
  if (row >= u.rows) {
    return;
  }
  let line = row / u.y_width;
  let n = line / u.y_height;
  let top = i32((line - n * u.y_height) * u.stride) - i32(u.padding);
  let left = i32((row - line * u.y_width) * u.stride) - i32(u.padding);
  for (var c = local.x; c < u.channels; c += WIDTH) {
    var best = T(0);
    var best_tap = 0xffffffffu;
    for (var dy = 0u; dy < u.kernel; dy++) {
      let h = top + i32(dy);
      if (h < 0 || h >= i32(u.x_height)) {
        continue;
      }
      for (var dx = 0u; dx < u.kernel; dx++) {
        let w = left + i32(dx);
        if (w < 0 || w >= i32(u.x_width)) {
          continue;
        }
        let value = x[((n * u.x_height + u32(h)) * u.x_width + u32(w)) * u.channels + c];
        if (best_tap == 0xffffffffu || value > best) {
          best = value;
          best_tap = dy * u.kernel + dx;
        }
      }
    }
    y[row * u.channels + c] = best;
    tap[row * u.channels + c] = best_tap;
  }
}
