// y = x with its axes in another order: each element of y read where it lies in x.
const RANK: u32 = 3;
const PER_THREAD: u32 = 4;
alias T = f32;
alias U = f32;

// Of each axis of y its extent, and how far apart its elements lie in x.
struct Uniforms { count: u32, grid_x: u32, axes: array<vec4u, RANK> }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = (group.x + group.y * u.grid_x) * 64u * PER_THREAD + lane;
  for (var k = 0u; k < PER_THREAD; k++) {
    let i = first + k * 64u;
    if (i >= u.count) {
      return;
    }
    var rest = i;
    var place = 0u;
    for (var axis = RANK - 1u; axis > 0u; axis--) {
      let outer = rest / u.axes[axis].x;
      place += (rest - outer * u.axes[axis].x) * u.axes[axis].y;
      rest = outer;
    }
    y[i] = U(x[place + rest * u.axes[0].y]);
  }
}
