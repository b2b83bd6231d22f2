// Weight gradient of a convolution with few output channels, for CPU drivers. A workgroup is one
// subgroup, of 8 lanes or 4, and owns four input channels. Its lanes are groups, each of which sums over pixels of its own, P neighbours of a row
// at a time, whose windows overlap in what is read; a lane has four output channels. Both maps are mirrors: a lane reads four
// elements of a texture in the time in which it reads one of a buffer.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const P = 11u;
const GROUPS = 2u;
const LANES = 4u; // of a group
const QUADS = 4u; // at most LANES
const ROWS = 3u;
const TAPS = 3u;
const STRIDE = 1u;
// A lane's share of what the windows of P pixels read of one row.
const READS = 4u; // ((P - 1) * STRIDE + TAPS) / LANES, rounded up
const TERMS = 36u; // ROWS * TAPS * 4
alias A = texture_storage_2d<rgba32float, read>;
alias B = texture_storage_2d<rgba32float, read>;
alias U = vec4f;

// x [n, in_h, in_w, in_c], dy [n, out_h, out_w, out_c], y = dw [slices, kh, kw, in_c, out_c].
// Grid: slices of `strips` turns of each group, input channels / 4, tiles of output channels.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, strips: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var x: A;
@group(0) @binding(2) var dy: B;
@group(0) @binding(3) var<storage, read_write> y: array<U>;

var<workgroup> totals: array<vec4f, TERMS * GROUPS * LANES>;

// Texel t of a tensor lies behind a row of zeros.
const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

fn load_x(t: u32) -> vec4f {
  return textureLoad(x, vec2u(t & 4095, t >> 12));
}

fn load_dy(t: u32) -> vec4f {
  return textureLoad(dy, vec2u(t & 4095, t >> 12));
}

@compute @workgroup_size(GROUPS * LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = lane / LANES;
  let at = lane - group * LANES;
  let first = group * LANES;
  let in_quads = s.in_c / 4;
  let out_quads = s.out_c / 4;
  let quad = wg.z * QUADS + min(at, QUADS - 1);
  let across = (s.out_w + P - 1) / P;
  let begin = (wg.x * GROUPS + group) * s.strips;
  let row = begin / across;
  var ox = (begin - row * across) * P;
  var image = row / s.out_h;
  var oy = row - image * s.out_h;

  var sums: array<vec4f, TERMS>;
  for (var k = 0u; k < s.strips; k++) {
    let from_pixel = FIRST_TEXEL + ((image * s.out_h + oy) * s.out_w + ox) * out_quads + quad;
    var d: array<vec4f, P>;
    for (var p = 0u; p < P; p++) { // unrolled
      d[p] = load_dy(select(OUTSIDE, from_pixel + p * out_quads, image < s.n && ox + p < s.out_w && quad < out_quads));
    }
    let x0 = i32(ox * STRIDE + at) - i32(s.pad_w);
    for (var r = 0u; r < ROWS; r++) { // unrolled
      let iy = i32(oy * STRIDE + r) - i32(s.pad_h);
      let base = ((i32(image * s.in_h) + iy) * i32(s.in_w) + x0) * i32(in_quads) + i32(FIRST_TEXEL + wg.y);
      let in_row = u32(iy) < s.in_h && image < s.n;
      var texels: array<vec4f, READS>;
      for (var i = 0u; i < READS; i++) { // unrolled
        let inside = in_row && u32(x0 + i32(i * LANES)) < s.in_w;
        texels[i] = load_x(select(OUTSIDE, u32(base) + i * LANES * in_quads, inside));
      }
      for (var t = 0u; t < TAPS; t++) { // unrolled
        for (var c = 0u; c < 4u; c++) { // unrolled
          for (var p = 0u; p < P; p++) { // unrolled
            let v = subgroupShuffle(texels[(p * STRIDE + t) / LANES][c], first + (p * STRIDE + t) % LANES);
            sums[(r * TAPS + t) * 4 + c] = fma(vec4f(v), d[p], sums[(r * TAPS + t) * 4 + c]);
          }
        }
      }
    }
    ox += P;
    let end_x = ox >= s.out_w;
    ox = select(ox, 0, end_x);
    oy += u32(end_x);
    let end_y = oy == s.out_h;
    oy = select(oy, 0, end_y);
    image += u32(end_y);
  }

  // A loop that is not written out stores: stores are long, and take long to compile.
  for (var k = 0u; k < TERMS; k++) { // unrolled
    totals[k * GROUPS * LANES + lane] = sums[k];
  }
  workgroupBarrier();
  for (var k = group; k < TERMS; k += GROUPS) {
    var total = vec4f();
    for (var g = 0u; g < GROUPS; g++) {
      total += totals[(k * GROUPS + g) * LANES + at];
    }
    if (at < QUADS && quad < out_quads) {
      let weight = (wg.x * ROWS * TAPS + k / 4) * s.in_c + wg.y * 4 + k % 4;
      y[weight * out_quads + quad] = U(total);
    }
  }
}
