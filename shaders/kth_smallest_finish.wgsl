// Reads the k-th smallest value off the histograms of kth_smallest.wgsl.
struct Uniforms { count: u32, k: u32, groups: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> histogram: array<u32>; // [4, 256]
@group(0) @binding(2) var<storage, read_write> value: array<f32>;

@compute @workgroup_size(1)
fn main() {
  var found = 0u;
  var rank = u.k;
  for (var pass_index = 0u; pass_index < 4u; pass_index++) {
    var byte = 0u;
    loop {
      let here = histogram[pass_index * 256u + byte];
      if (rank <= here || byte == 255u) {
        break;
      }
      rank -= here;
      byte++;
    }
    found = (found << 8u) | byte;
  }
  value[0] = bitcast<f32>(found);
}
