// Zeroes a buffer of 32-bit words.
struct Uniforms { count: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * u.grid_x) * 64 + lane;
  if (i < u.count) {
    y[i] = 0u;
  }
}
