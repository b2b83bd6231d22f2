// Adds map `index` of maps [N, h, w, C] to a larger map [H, W, C] at its place; what lies outside of that is left out.

struct Uniforms { pixels: u32, width: u32, channels: u32, index: u32, sum_height: u32, sum_width: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> maps: array<f32>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let pixel = (group.x + group.y * u.grid_x) * 64u + lane;
  if (pixel >= u.pixels) {
    return;
  }
  // A place above or left of the larger map has wrapped around, and is beyond its extent.
  let row = places[2u * u.index] + pixel / u.width;
  let column = places[2u * u.index + 1u] + pixel % u.width;
  if (row >= u.sum_height || column >= u.sum_width) {
    return;
  }
  let start = (u.index * u.pixels + pixel) * u.channels;
  let target_start = (row * u.sum_width + column) * u.channels;
  for (var c = 0u; c < u.channels; c++) {
    sums[target_start + c] += maps[start + c];
  }
}
