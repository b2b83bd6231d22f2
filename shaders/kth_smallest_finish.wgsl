// Reads the k-th smallest value off the histograms of kth_smallest.wgsl.
struct Uniforms { count: u32, k: u32, groups: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> histogram: array<u32>; // [4, 256]
@group(0) @binding(2) var<storage, read_write> value: array<f32>;

var<workgroup> sums: array<u32, 256>;
var<workgroup> found_byte: u32;
var<workgroup> found_rank: u32;

/// The byte in whose counts the value of a rank lies, of a histogram whose counts all threads have one each of, and the rank
/// among these.
fn find_byte(lane: u32, count: u32, rank: u32) -> vec2u {
  workgroupBarrier();
  sums[lane] = count;
  workgroupBarrier();
  for (var step = 1u; step < 256u; step *= 2u) {
    var sum = sums[lane];
    if (lane >= step) {
      sum += sums[lane - step];
    }
    workgroupBarrier();
    sums[lane] = sum;
    workgroupBarrier();
  }
  let below = sums[lane] - count;
  if (rank > below && (rank <= sums[lane] || lane == 255u)) {
    found_byte = lane;
    found_rank = rank - below;
  }
  workgroupBarrier();
  return vec2u(found_byte, found_rank);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
  var found = 0u;
  var rank = u.k;
  for (var pass_index = 0u; pass_index < 4u; pass_index++) {
    let next = find_byte(lane, histogram[pass_index * 256u + lane], rank);
    found = (found << 8u) | next.x;
    rank = next.y;
  }
  if (lane == 0u) {
    value[0] = bitcast<f32>(found);
  }
}
