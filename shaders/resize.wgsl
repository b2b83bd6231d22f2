// Bilinear resize with align_corners: x [N, XH, XW, C] → y [N, YH, YW, C].
const WIDTH: u32 = 8;
const HEIGHT: u32 = 8;
alias T = f32;

struct Uniforms {
  rows: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  scale_h: f32, scale_w: f32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size(WIDTH, HEIGHT)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.x + group.y * u.grid_x) * HEIGHT + local.y;
  if (row >= u.rows) {
    return;
  }
  let line = row / u.y_width;
  let n = line / u.y_height;
  let h = f32(line - n * u.y_height) * u.scale_h;
  let w = f32(row - line * u.y_width) * u.scale_w;
  let h0 = min(u32(h), u.x_height - 1u);
  let w0 = min(u32(w), u.x_width - 1u);
  let h1 = min(h0 + 1u, u.x_height - 1u);
  let w1 = min(w0 + 1u, u.x_width - 1u);
  let fh = h - f32(h0);
  let fw = w - f32(w0);
  let above = (n * u.x_height + h0) * u.x_width;
  let below = (n * u.x_height + h1) * u.x_width;
  let i00 = (above + w0) * u.channels;
  let i01 = (above + w1) * u.channels;
  let i10 = (below + w0) * u.channels;
  let i11 = (below + w1) * u.channels;
  for (var c = local.x; c < u.channels; c += WIDTH) {
    let upper = (1f - fw) * f32(x[i00 + c]) + fw * f32(x[i01 + c]);
    let lower = (1f - fw) * f32(x[i10 + c]) + fw * f32(x[i11 + c]);
    y[row * u.channels + c] = T((1f - fh) * upper + fh * lower);
  }
}
