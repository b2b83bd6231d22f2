// y[i] = sum of x[slice, i] over the slices, in order: the second pass of a product split along its inner dimension.
alias U = f32;
struct Shape { size: u32, slices: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

fn store(i: u32, v: f32) {
  y[i] = U(v);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * 64 + id.x;
  if (i >= s.size) {
    return;
  }
  var total = 0.0;
  for (var k = 0u; k < s.slices; k++) {
    total += x[k * s.size + i];
  }
  store(i, total);
}
