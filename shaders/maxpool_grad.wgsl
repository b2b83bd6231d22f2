// Gradient of max pooling: each input pixel gathers from the windows whose maximum it was.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;

struct Uniforms {
  rows: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  kernel: u32, stride: u32, padding: u32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<T>;
@group(0) @binding(2) var<storage, read> tap: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<T>;

/// First window that covers a padded coordinate.
fn first_window(at: u32) -> u32 {
  if (at < u.kernel) {
    return 0u;
  }
  return (at - u.kernel) / u.stride + 1u;
}

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.x + group.y * u.grid_x) * HEIGHT + local.y;
  if (row >= u.rows) {
    return;
  }
  let line = row / u.x_width;
  let n = line / u.x_height;
  let h = line - n * u.x_height + u.padding;
  let w = row - line * u.x_width + u.padding;
  let h_first = first_window(h);
  let w_first = first_window(w);
  let h_end = min(h / u.stride + 1u, u.y_height);
  let w_end = min(w / u.stride + 1u, u.y_width);
  for (var c = local.x; c < u.channels; c += WIDTH) {
    var total = T(0);
    for (var oh = h_first; oh < h_end; oh++) {
      for (var ow = w_first; ow < w_end; ow++) {
        let at = ((n * u.y_height + oh) * u.y_width + ow) * u.channels + c;
        if (tap[at] == (h - oh * u.stride) * u.kernel + (w - ow * u.stride)) {
          total += dy[at];
        }
      }
    }
    dx[row * u.channels + c] = total;
  }
}
