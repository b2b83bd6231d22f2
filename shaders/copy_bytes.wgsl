// Copies bytes from a place that need not be the beginning of a word.
struct Uniforms { words: u32, first: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * u.grid_x) * 64 + lane;
  if (i >= u.words) {
    return;
  }
  let at = u.first / 4 + i;
  let shift = (u.first & 3) * 8;
  let low = x[at] >> shift;
  // The last word may have bytes of one word alone.
  let high = x[min(at + 1, arrayLength(&x) - 1)] << ((32 - shift) & 31);
  y[i] = select(low, low | high, shift > 0);
}
