// Convolution with few channels, and its input gradient, for CPU drivers. A workgroup is one
// subgroup, of 8 lanes or 4, whose weights fill one panel that stays in the cache. Its lanes are groups: each computes QUADS * 4 output channels
// of P neighbouring pixels at a time, whose windows overlap in what it reads, and walks along the rows of the map. Both factors
// are mirrors: a lane reads four elements of a texture in the time in which it reads one of a buffer.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const P = 2u;
const GROUPS = 2u;
const LANES = 4u; // of a group
const QUADS = 4u; // at most LANES
// Texels of a pixel that is read.
const IN_QUADS = 4u;
// The window, of an input gradient its part that reaches one phase of the stride: its rows, and the texels and elements of one.
const ROWS = 3u;
const TAPS = 3u;
const TEXELS = 12u; // TAPS * IN_QUADS
const TERMS = 48u; // TEXELS * 4
const PANEL = 144u; // ROWS * TERMS
// Texels between the windows of neighbouring pixels.
const STEP = 4u;
// A lane's share of what the windows of P pixels read of one row.
const READS = 4u; // ((P - 1) * STEP + TEXELS) / LANES, rounded up
alias A = texture_storage_2d<rgba32float, read>;
alias B = texture_storage_2d<rgba32float, read>;
alias U = f32;
alias Y = f32;
const INPUT_GRAD = false;
const Y_BINDING = 3u;
const VALUES = 1u;

// Forward: a = x [n, in_h, in_w, in_c], w [kh, kw, in_c, out_c filled up to a multiple of four], y [n, out_h, out_w, out_c].
// Input gradient: a = dy [n, in_h, in_w, in_c], w [kh, kw, out_c, in_c], y = dx [n, out_h, out_w, out_c].
// Channels that are read are filled up to a multiple of four.
// Grid: workgroups of `strips` turns of each group, tiles of output channels, phases (input gradient: stride_h * stride_w, else 1).
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, strips: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var a: A;
@group(0) @binding(2) var w: B;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<Y>;

// Texel t of a tensor lies behind a row of zeros.
const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

fn load_a(t: u32) -> vec4f {
  return textureLoad(a, vec2u(t & 4095, t >> 12));
}

fn load_w(t: u32) -> vec4f {
  return textureLoad(w, vec2u(t & 4095, t >> 12));
}

// What `store` needs of an output channel, loaded once for all pixels.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = Y(v);
}

// Four channels of a pixel from n on. Where their number is a multiple of four, the loader replaces this by one store.
fn store_quad(pixel: u32, n: u32, v: vec4f, values: array<array<f32, VALUES>, 4>) {
  for (var g = 0u; g < 4u; g++) { // unrolled
    if (n + g < s.out_c) {
      store(pixel, n + g, v[g], values[g]);
    }
  }
}

@compute @workgroup_size(GROUPS * LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = lane / LANES;
  let at = lane - group * LANES;
  let first = group * LANES;
  let quad = wg.y * QUADS + min(at, QUADS - 1);
  let n = quad * 4;
  // The strides of the map that is read, and of the written one: its pixels of one phase share the taps that reach them.
  let scale = select(vec2u(s.stride_h, s.stride_w), vec2u(1), INPUT_GRAD);
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let phase = vec2u(wg.z / step.y, wg.z % step.y);
  let height = (s.out_h + step.x - 1 - phase.x) / step.x;
  let width = (s.out_w + step.y - 1 - phase.y) / step.y;
  if (height == 0 || width == 0) {
    return;
  }
  // The input gradient meets its taps, `step` apart, from the last one on: so it reads as a convolution does, but adds up in
  // their order.
  let from_tap = phase + vec2u(s.pad_h, s.pad_w);
  let first_tap = from_tap % step;
  let pad_h = select(i32(s.pad_h), i32(ROWS - 1) - i32(from_tap.x / step.x), INPUT_GRAD);
  let pad_w = select(i32(s.pad_w), i32(TAPS - 1) - i32(from_tap.y / step.y), INPUT_GRAD);

  // Texel k of the panel: the lane's channels of term k.
  var panel: array<vec4f, PANEL>;
  if (INPUT_GRAD) {
    for (var r = 0u; r < ROWS; r++) { // unrolled
      for (var t = 0u; t < TEXELS; t++) { // unrolled
        let tap = first_tap + vec2u(r, t / IN_QUADS) * step;
        let base = FIRST_TEXEL + ((tap.x * s.kw + tap.y) * s.out_c + n) * IN_QUADS + t % IN_QUADS;
        let is_tap = tap.x < s.kh && tap.y < s.kw;
        var texels: array<vec4f, 4>;
        for (var g = 0u; g < 4u; g++) { // unrolled
          texels[g] = load_w(select(OUTSIDE, base + g * IN_QUADS, is_tap));
        }
        for (var c = 0u; c < 4u; c++) { // unrolled
          panel[r * TERMS + t * 4 + c] = vec4f(texels[0][c], texels[1][c], texels[2][c], texels[3][c]);
        }
      }
    }
  } else {
    let out_quads = (s.out_c + 3) / 4;
    for (var k = 0u; k < PANEL; k++) { // unrolled
      panel[k] = load_w(FIRST_TEXEL + k * out_quads + quad);
    }
  }

  // The columns of the lane's texels beside the first pixel's.
  var column: array<i32, READS>;
  for (var i = 0u; i < READS; i++) { // unrolled
    column[i] = i32((i * LANES + at) / IN_QUADS) - pad_w;
  }
  var values: array<array<f32, VALUES>, 4>;
  for (var g = 0u; g < 4u; g++) {
    values[g] = channel_values(min(n + g, s.out_c - 1));
  }
  let across = (width + P - 1) / P;
  let begin = (wg.x * GROUPS + group) * s.strips;
  let row = begin / across;
  var ox = (begin - row * across) * P;
  var image = row / height;
  var oy = row - image * height;
  for (var k = 0u; k < s.strips; k++) {
    // Without a value it keeps that of the turn before on Mesa's CPU driver.
    var sums = array<vec4f, P>();
    let x0 = i32(ox * scale.y);
    for (var r = 0u; r < ROWS; r++) { // unrolled
      let iy = i32(oy * scale.x) - pad_h + i32(select(r, ROWS - 1 - r, INPUT_GRAD));
      let base = ((i32(image * s.in_h) + iy) * i32(s.in_w) + x0 - pad_w) * i32(IN_QUADS) + i32(FIRST_TEXEL + at);
      let in_row = u32(iy) < s.in_h && image < s.n;
      var texels: array<vec4f, READS>;
      for (var i = 0u; i < READS; i++) { // unrolled
        let inside = in_row && u32(x0 + column[i]) < s.in_w;
        texels[i] = load_a(select(OUTSIDE, u32(base) + i * LANES, inside));
      }
      for (var t = 0u; t < TEXELS; t++) { // unrolled
        let from_first = select(t, (TAPS - 1 - t / IN_QUADS) * IN_QUADS + t % IN_QUADS, INPUT_GRAD);
        for (var c = 0u; c < 4u; c++) { // unrolled
          for (var p = 0u; p < P; p++) { // unrolled
            let v = subgroupShuffle(texels[(p * STEP + from_first) / LANES][c], first + (p * STEP + from_first) % LANES);
            sums[p] = fma(vec4f(v), panel[r * TERMS + t * 4 + c], sums[p]);
          }
        }
      }
    }
    let pixel = (image * s.out_h + oy * step.x + phase.x) * s.out_w + ox * step.y + phase.y;
    for (var p = 0u; p < P; p++) { // unrolled
      if (image < s.n && ox + p < width && at < QUADS && n < s.out_c) {
        store_quad(pixel + p * step.y, n, sums[p], values);
      }
    }
    ox += P;
    let end_x = ox >= width;
    ox = select(ox, 0, end_x);
    oy += u32(end_x);
    let end_y = oy == height;
    oy = select(oy, 0, end_y);
    image += u32(end_y);
  }
}
