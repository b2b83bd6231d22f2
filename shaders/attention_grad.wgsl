// Gradients of attention.wgsl, whose scores are computed again from their logarithms of sums. A thread computes a row of
// the gradient: of a query over all keys (OF 0), or of a key (OF 1) or value (OF 2) over all queries of its slice. With s a
// score, w = exp(s − log_sum) its weight and ds = w (dy · v − delta): dq = scale Σ ds k, dk = scale Σ ds q, dv = Σ w dy.
// Grid: 64 rows, heads, samples times slices, each of which is written to a result of its own.
const DIM: u32 = 4;
const OF: u32 = 0;
// Rows of the other side that a thread takes at a time.
const BLOCK: u32 = 4;
// Rows of the other side that lie in workgroup memory at once, where SHARED.
const TILE: u32 = 32;
const SHARED = true;
alias Q = vec4f;
alias K = vec4f;
alias V = vec4f;
alias D = vec4f;
alias S = f32;
alias U = vec4f;
alias P = vec4f;

struct Uniforms { queries: u32, keys: u32, heads: u32, scale: f32, samples: u32, slices: u32, dim: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> q: array<Q>;
@group(0) @binding(2) var<storage, read> k: array<K>;
@group(0) @binding(3) var<storage, read> v: array<V>;
@group(0) @binding(4) var<storage, read> dy: array<D>;
@group(0) @binding(5) var<storage, read> log_sums: array<f32>;
// The sums of dy · y over the channels of a head.
@group(0) @binding(6) var<storage, read> delta: array<S>;
@group(0) @binding(7) var<storage, read_write> result: array<U>;

const BY_QUERY = OF == 0u;
var<workgroup> tile_a: array<P, TILE * DIM>;
var<workgroup> tile_b: array<P, TILE * DIM>;

/// The sum of a pack's elements.
fn sum_of(pack: P) -> f32 {
  return dot(pack, vec4f(1));
}

/// Packs of a head; see attention.wgsl.
fn dim() -> u32 {
  return DIM;
}

/// What scores are made of, of the other side.
fn load_a(i: u32) -> P {
  if (BY_QUERY) {
    return P(k[i]);
  }
  return P(q[i]);
}

/// What the gradients of the weights are made of.
fn load_b(i: u32) -> P {
  if (BY_QUERY) {
    return P(v[i]);
  }
  return P(dy[i]);
}

fn other_a(i: u32) -> P {
  if (SHARED) {
    return tile_a[i];
  }
  return load_a(i);
}

fn other_b(i: u32) -> P {
  if (SHARED) {
    return tile_b[i];
  }
  return load_b(i);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let rows = select(u.keys, u.queries, BY_QUERY);
  let all = select(u.queries, u.keys, BY_QUERY);
  let n = group.z / u.slices;
  let slice = group.z - n * u.slices;
  let per_slice = (all + u.slices - 1u) / u.slices;
  let end = min((slice + 1u) * per_slice, all);
  let row = group.x * 64u + thread;
  let pitch = u.heads * dim();
  let own = min(row, rows - 1u);
  let own_at = (n * rows + own) * pitch + group.y * dim();
  let others = n * all * pitch + group.y * dim();
  var a: array<P, DIM>;
  var b: array<P, DIM>;
  var sums: array<P, DIM>;
  for (var d = 0u; d < dim(); d++) {
    if (BY_QUERY) {
      a[d] = P(q[own_at + d]) * u.scale;
      b[d] = P(dy[own_at + d]);
    } else {
      a[d] = P(k[own_at + d]) * u.scale;
      b[d] = P(v[own_at + d]);
    }
  }
  // Of a query they stay, of a key they change from query to query.
  let of_query = (n * u.queries + own) * u.heads + group.y;
  var log_sum = 0f;
  var mean = 0f;
  if (BY_QUERY) {
    log_sum = log_sums[of_query];
    mean = f32(delta[of_query]);
  }
  for (var first = slice * per_slice; first < end; first += TILE) {
    let count = min(TILE, end - first);
    if (SHARED) {
      workgroupBarrier();
      for (var i = thread; i < count * dim(); i += 64u) {
        let at = others + (first + i / dim()) * pitch + i % dim();
        tile_a[i] = load_a(at);
        tile_b[i] = load_b(at);
      }
      workgroupBarrier();
    }
    for (var j = 0u; j < count; j += BLOCK) {
      var at: array<u32, BLOCK>;
      // In words: what is declared in a loop without a value keeps its last one, measured with Dawn on Vulkan.
      var products = array<P, BLOCK>();
      var changes = array<P, BLOCK>();
      var factors: array<f32, BLOCK>;
      for (var i = 0u; i < BLOCK; i++) { // unrolled
        let other = min(j + i, count - 1u);
        at[i] = select(others + (first + other) * pitch, other * dim(), SHARED);
      }
      for (var d = 0u; d < dim(); d++) {
        let own_a = a[d];
        let own_b = b[d];
        for (var i = 0u; i < BLOCK; i++) { // unrolled
          products[i] += own_a * other_a(at[i] + d);
          if (OF != 2u) {
            changes[i] += own_b * other_b(at[i] + d);
          }
        }
      }
      for (var i = 0u; i < BLOCK; i++) { // unrolled
        if (!BY_QUERY) {
          let of_other = (n * u.queries + first + min(j + i, count - 1u)) * u.heads + group.y;
          log_sum = log_sums[of_other];
          mean = f32(delta[of_other]);
        }
        let weight = exp(sum_of(products[i]) - log_sum);
        let factor = select(weight * (sum_of(changes[i]) - mean), weight, OF == 2u);
        factors[i] = select(0f, factor, j + i < count);
      }
      for (var d = 0u; d < dim(); d++) {
        var sum = sums[d];
        for (var i = 0u; i < BLOCK; i++) { // unrolled
          if (OF == 2u) {
            sum += factors[i] * other_b(at[i] + d);
          } else {
            sum += factors[i] * other_a(at[i] + d);
          }
        }
        sums[d] = sum;
      }
    }
  }
  if (row < rows) {
    let factor = select(u.scale, 1f, OF == 2u);
    let written = slice * u.samples * rows * pitch + own_at;
    for (var d = 0u; d < dim(); d++) {
      result[written + d] = U(sums[d] * factor);
    }
  }
}
