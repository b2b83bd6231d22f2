// Adds predictions to counts [K, K], rows by target, columns by prediction. Integer additions in any order are exact.
struct Uniforms { count: u32, classes: u32, ignore_index: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> predicted: array<u32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

fn load_target(row: u32) -> u32 {
  return targets[row];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * u.grid_x) * 64u + lane;
  if (row >= u.count) {
    return;
  }
  let wanted = load_target(row);
  if (wanted != u.ignore_index && wanted < u.classes && predicted[row] < u.classes) {
    atomicAdd(&counts[wanted * u.classes + predicted[row]], 1u);
  }
}
