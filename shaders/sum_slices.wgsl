// The sum of slices, in order: the second pass of a product split along its inner dimension.
alias U = f32;
const Y_BINDING = 2u;
const VALUES = 1u;

// x [slices, n, out_h, out_w, out_c], y [n, out_h, out_w, out_c].
struct Shape { n: u32, out_h: u32, out_w: u32, out_c: u32, slices: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

// What `store` needs of an output channel.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = U(v);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * 64 + id.x;
  let size = s.n * s.out_h * s.out_w * s.out_c;
  if (i >= size) {
    return;
  }
  var total = 0.0;
  for (var k = 0u; k < s.slices; k++) {
    total += x[k * size + i];
  }
  let pixel = i / s.out_c;
  let n = i - pixel * s.out_c;
  store(pixel, n, total, channel_values(n));
}
