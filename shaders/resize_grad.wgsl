// Gradient of resize.wgsl: each input pixel gathers from the output pixels that read it.
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;

struct Uniforms {
  rows: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  scale_h: f32, scale_w: f32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> dy: array<T>;
@group(0) @binding(2) var<storage, read_write> dx: array<T>;

/// Output coordinates that may read input coordinate `at`: from .x up to, not including, .y.
fn readers(at: u32, scale: f32, count: u32) -> vec2u {
  if (scale == 0f) {
    return vec2u(0u, count);
  }
  // One more at either side, since the division rounds; weight() is zero there.
  let low = max(floor((f32(at) - 1f) / scale) - 1f, 0f);
  let high = min(ceil((f32(at) + 1f) / scale) + 2f, f32(count));
  return vec2u(u32(low), u32(high));
}

/// Weight of input coordinate `at` in output coordinate `to`, as the forward pass computes it.
fn weight(at: u32, to: u32, scale: f32, size: u32) -> f32 {
  let position = f32(to) * scale;
  let first = min(u32(position), size - 1u);
  let second = min(first + 1u, size - 1u);
  let fraction = position - f32(first);
  return select(0f, 1f - fraction, first == at) + select(0f, fraction, second == at);
}

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.x + group.y * u.grid_x) * HEIGHT + local.y;
  if (row >= u.rows) {
    return;
  }
  let line = row / u.x_width;
  let n = line / u.x_height;
  let h = line - n * u.x_height;
  let w = row - line * u.x_width;
  let rows = readers(h, u.scale_h, u.y_height);
  let columns = readers(w, u.scale_w, u.y_width);
  for (var c = local.x; c < u.channels; c += WIDTH) {
    var total = 0f;
    for (var oh = rows.x; oh < rows.y; oh++) {
      let wh = weight(h, oh, u.scale_h, u.x_height);
      if (wh == 0f) {
        continue;
      }
      let start = ((n * u.y_height + oh) * u.y_width) * u.channels + c;
      for (var ow = columns.x; ow < columns.y; ow++) {
        let ww = weight(w, ow, u.scale_w, u.x_width);
        if (ww != 0f) {
          total += wh * ww * f32(dy[start + ow * u.channels]);
        }
      }
    }
    dx[row * u.channels + c] = T(total);
  }
}
