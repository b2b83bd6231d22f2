// Reverses the columns of maps [N, H, W, C]: rows of `width` pixels of `channels` elements.
alias T = f32;
alias U = f32;

struct Uniforms { count: u32, width: u32, channels: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * u.grid_x) * 64 + lane;
  if (i >= u.count) {
    return;
  }
  let pixel = i / u.channels;
  let column = pixel % u.width;
  y[i] = U(x[i + (u.width - 1 - column) * u.channels - column * u.channels]);
}
