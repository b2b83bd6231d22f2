// One pass of a radix selection of the k-th smallest of non-negative floats, whose bits order as they do.
// Pass p counts the p-th byte (highest first) of the values that share the bytes found so far; after four passes
// the value is known. Integer counts, so the result does not depend on the order of the additions.
const PASS: u32 = 0;

struct Uniforms { count: u32, k: u32, groups: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> histogram: array<atomic<u32>>; // [4, 256]

var<workgroup> local_counts: array<atomic<u32>, 256>;
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

/// The leading bytes of the k-th smallest value, from the histograms of the passes before.
fn find_prefix(lane: u32) -> u32 {
  var found = 0u;
  var rank = u.k;
  for (var pass_index = 0u; pass_index < PASS; pass_index++) {
    let next = find_byte(lane, atomicLoad(&histogram[pass_index * 256u + lane]), rank);
    found = (found << 8u) | next.x;
    rank = next.y;
  }
  return found;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let prefix = find_prefix(lane);
  atomicStore(&local_counts[lane], 0u);
  workgroupBarrier();
  for (var i = group.x * 256u + lane; i < u.count; i += u.groups * 256u) {
    let bits = bitcast<u32>(values[i]);
    // A shift by 32 is undefined, so the first pass, where every value belongs, is shifted in two steps.
    let leading = (bits >> (24u - 8u * PASS)) >> 8u;
    if (leading == prefix) {
      atomicAdd(&local_counts[(bits >> (24u - 8u * PASS)) & 255u], 1u);
    }
  }
  workgroupBarrier();
  let mine = atomicLoad(&local_counts[lane]);
  if (mine > 0u) {
    atomicAdd(&histogram[PASS * 256u + lane], mine);
  }
}
