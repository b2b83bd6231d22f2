// y = softmax(q · kᵀ · scale) · v for each head, whose channels lie together, and of each row of the scores the logarithm
// of the sum of its exponentials: q, y [N, L, C], k, v [N, M, C], in packs, log_sums [N, L, heads].
// A thread computes a query, over BLOCK keys at a time, so that the scores are never stored: where a block has a larger
// score than all before, what was added up is scaled down. Grid: 64 queries, heads, samples.
const DIM: u32 = 4;
const BLOCK: u32 = 8;
// Keys that lie in workgroup memory at once, where SHARED.
const TILE: u32 = 32;
const SHARED = true;
alias Q = vec4f;
alias K = vec4f;
alias V = vec4f;
alias U = vec4f;
// What is computed with.
alias P = vec4f;

struct Uniforms { queries: u32, keys: u32, heads: u32, scale: f32, dim: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> q: array<Q>;
@group(0) @binding(2) var<storage, read> k: array<K>;
@group(0) @binding(3) var<storage, read> v: array<V>;
@group(0) @binding(4) var<storage, read_write> y: array<U>;
@group(0) @binding(5) var<storage, read_write> log_sums: array<f32>;

var<workgroup> tile_k: array<P, TILE * DIM>;
var<workgroup> tile_v: array<P, TILE * DIM>;

const lowest = -3.4e38f;

/// Packs of a head. A driver that unrolls loops of known length holds a thread's rows in registers; on a CPU that takes
/// minutes to compile, so that there the length is a uniform, and DIM the most that it may be.
fn dim() -> u32 {
  return DIM;
}

fn key(i: u32) -> P {
  if (SHARED) {
    return tile_k[i];
  }
  return P(k[i]);
}

fn value(i: u32) -> P {
  if (SHARED) {
    return tile_v[i];
  }
  return P(v[i]);
}

/// The sum of a pack's elements.
fn sum_of(pack: P) -> f32 {
  return dot(pack, vec4f(1));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let query = group.x * 64u + thread;
  let pitch = u.heads * dim();
  let own = (group.z * u.queries + min(query, u.queries - 1u)) * pitch + group.y * dim();
  let others = group.z * u.keys * pitch + group.y * dim();
  var mine: array<P, DIM>;
  var sums: array<P, DIM>;
  for (var d = 0u; d < dim(); d++) {
    mine[d] = P(q[own + d]) * u.scale;
  }
  var largest = lowest;
  var total = 0f;
  for (var first = 0u; first < u.keys; first += TILE) {
    let count = min(TILE, u.keys - first);
    if (SHARED) {
      workgroupBarrier();
      for (var i = thread; i < count * dim(); i += 64u) {
        let at = others + (first + i / dim()) * pitch + i % dim();
        tile_k[i] = P(k[at]);
        tile_v[i] = P(v[at]);
      }
      workgroupBarrier();
    }
    for (var j = 0u; j < count; j += BLOCK) {
      var at: array<u32, BLOCK>;
      // In words: what is declared in a loop without a value keeps its last one, measured with Dawn on Vulkan.
      var products = array<P, BLOCK>();
      var weights: array<f32, BLOCK>;
      for (var b = 0u; b < BLOCK; b++) { // unrolled
        let row = min(j + b, count - 1u);
        at[b] = select(others + (first + row) * pitch, row * dim(), SHARED);
      }
      for (var d = 0u; d < dim(); d++) {
        let own = mine[d];
        for (var b = 0u; b < BLOCK; b++) { // unrolled
          products[b] += own * key(at[b] + d);
        }
      }
      var top = largest;
      for (var b = 0u; b < BLOCK; b++) { // unrolled
        weights[b] = select(lowest, sum_of(products[b]), j + b < count);
        top = max(top, weights[b]);
      }
      let kept = exp(largest - top);
      largest = top;
      total *= kept;
      for (var b = 0u; b < BLOCK; b++) { // unrolled
        weights[b] = exp(weights[b] - top);
        total += weights[b];
      }
      for (var d = 0u; d < dim(); d++) {
        var sum = sums[d] * kept;
        for (var b = 0u; b < BLOCK; b++) { // unrolled
          sum += weights[b] * value(at[b] + d);
        }
        sums[d] = sum;
      }
    }
  }
  if (query < u.queries) {
    let share = 1f / total;
    for (var d = 0u; d < dim(); d++) {
      y[own + d] = U(sums[d] * share);
    }
    log_sums[(group.z * u.queries + query) * u.heads + group.y] = largest + log(total);
  }
}
