// Convolution, its input gradient and the matrix product, as an implicit GEMM for CPU drivers. One workgroup is one subgroup,
// of 8 lanes or 4. It owns rows, which are pixels, by 4 LANES HALVES columns, which are channels of the result. It takes
// the terms of the sums in panels: the weights of TERMS terms are read once and stay in the cache of the first
// level for all rows, since nothing changes them. Both factors are mirrors: a lane reads four elements of a texture in the
// time in which it reads one of a buffer. The sums of the rows lie in workgroup memory between panels.
enable subgroups;
diagnostic(off, subgroup_uniformity);

const LANES = 8u;
// A multiple of 4 LANES.
const TERMS = 32u;
const QUADS = 8u; // TERMS / 4
const BLOCKS = 2u; // TERMS / 16
const READS = 1u; // TERMS / (4 LANES)
const ROWS = 64u;
const HALVES = 2u;
alias A = texture_storage_2d<rgba32float, read>;
alias B = texture_storage_2d<rgba32float, read>;
alias U = f32;
const INPUT_GRAD = false;
const Y_BINDING = 3u;
const VALUES = 1u;

// Forward: a = x [n, in_h, in_w, in_c], w [kh, kw, in_c, w_c], y [n, out_h, out_w, out_c].
// Input gradient: a = dy [n, in_h, in_w, in_c], w [kh, kw, out_c, in_c], y = dx [n, out_h, out_w, out_c].
// The last axes of what mirrors hold, in_c and w_c, are multiples of four; w_c reaches out_c.
// Grid: grid_x tiles of rows, tiles of columns, then phases (input gradient: stride_h * stride_w, else 1) times what more
// of grid_x tiles of rows there are.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, grid_x: u32,
  rows: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var a: A;
@group(0) @binding(2) var w: B;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

var<workgroup> sums: array<vec4f, ROWS * HALVES * LANES>;

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
  y[pixel * s.out_c + n] = U(v);
}

// The taps along one axis that reach the pixels of a phase: the first, how far apart they are, and how many.
fn taps_of(phase: u32, pad: u32, dil: u32, stride: u32, count: u32) -> vec3u {
  if (!INPUT_GRAD || stride == 1) {
    return vec3u(0, 1, count);
  }
  var first = count;
  var apart = 1u;
  var found = 0u;
  for (var k = 0u; k < count; k++) {
    if ((i32(phase + pad) - i32(k * dil)) % i32(stride) == 0) {
      if (found == 0) {
        first = k;
      } else if (found == 1) {
        apart = k - first;
      }
      found++;
    }
  }
  return vec3u(first, apart, found);
}

// Where a tap reads, in the map that is read, beside the place of a pixel of the phase.
fn offset_of(tap: u32, phase: u32, pad: u32, dil: u32, stride: u32) -> i32 {
  let offset = i32(tap * dil) - i32(pad);
  if (INPUT_GRAD) {
    return (i32(phase) - offset) / i32(stride);
  }
  return offset;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  // The strides of the written map: its pixels of one phase share the taps that reach them.
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let scale = select(vec2u(s.stride_h, s.stride_w), vec2u(1), INPUT_GRAD);
  let phases = step.x * step.y;
  let phase = vec2u(wg.z % phases / step.y, wg.z % step.y);
  let height = (s.out_h + step.x - 1 - phase.x) / step.x;
  let width = (s.out_w + step.y - 1 - phase.y) / step.y;
  let pixels = s.n * height * width;
  let m0 = (wg.x + wg.z / phases * s.grid_x) * s.rows;
  if (m0 >= pixels) {
    return;
  }
  let rows = min(s.rows, pixels - m0);
  let image0 = m0 / (height * width);
  let place0 = m0 - image0 * height * width;
  let y0 = place0 / width;
  let x0 = place0 - y0 * width;

  let in_c4 = s.in_c / 4;
  let w_c4 = (s.out_c + 3) / 4;
  let taps_y = taps_of(phase.x, s.pad_h, s.dil_h, s.stride_h, s.kh);
  let taps_x = taps_of(phase.y, s.pad_w, s.dil_w, s.stride_w, s.kw);
  let terms = taps_y.z * taps_x.z * s.in_c;
  // The lane's columns: of vector g of half h. Texels of weights hold four columns, or four terms of the input gradient's.
  let n0 = wg.y * HALVES * LANES * 4;
  var column: array<u32, HALVES * 4>;
  for (var g = 0u; g < HALVES * 4; g++) {
    column[g] = n0 + select(g / 4 * LANES * 4 + lane * 4 + g % 4, g * LANES + lane, INPUT_GRAD);
  }

  // What the compiler cannot know.
  let never = s.n == 0;
  var begun = false;
  for (var k0 = 0u; k0 < terms; k0 += TERMS) {
    // Whether any tap of the panel reaches the map at all: dilated ones may not.
    var reaches = false;
    for (var t = k0 / s.in_c; t <= (min(k0 + TERMS, terms) - 1) / s.in_c; t++) {
      let ty = offset_of(taps_y.x + t / taps_x.z * taps_y.y, phase.x, s.pad_h, s.dil_h, s.stride_h);
      let tx = offset_of(taps_x.x + t % taps_x.z * taps_x.y, phase.y, s.pad_w, s.dil_w, s.stride_w);
      reaches |= ty < i32(s.in_h) && ty + i32((height - 1) * scale.x) >= 0 &&
        tx < i32(s.in_w) && tx + i32((width - 1) * scale.y) >= 0;
    }
    if (!reaches) {
      continue;
    }

    // The panel: vector HALVES i + h holds the lane's columns of half h for term i.
    var panel: array<vec4f, TERMS * HALVES>;
    if (INPUT_GRAD) {
      for (var i = 0u; i < QUADS; i++) { // unrolled
        let k = k0 + i * 4;
        let t = k / s.in_c;
        let tap = (taps_y.x + t / taps_x.z * taps_y.y) * s.kw + taps_x.x + t % taps_x.z * taps_x.y;
        let base = FIRST_TEXEL + tap * s.out_c * in_c4 + (k - t * s.in_c) / 4;
        for (var h = 0u; h < HALVES; h++) { // unrolled
          var texels: array<vec4f, 4>;
          for (var g = 0u; g < 4u; g++) { // unrolled
            let n = column[h * 4 + g];
            texels[g] = load_w(select(OUTSIDE, base + n * in_c4, k < terms && n < s.out_c));
          }
          for (var j = 0u; j < 4u; j++) { // unrolled
            panel[(i * 4 + j) * HALVES + h] = vec4f(texels[0][j], texels[1][j], texels[2][j], texels[3][j]);
          }
        }
      }
    } else {
      for (var i = 0u; i < TERMS; i++) { // unrolled
        for (var h = 0u; h < HALVES; h++) { // unrolled
          let n = n0 / 4 + h * LANES + lane;
          panel[i * HALVES + h] = load_w(select(OUTSIDE, FIRST_TEXEL + (k0 + i) * w_c4 + n, k0 + i < terms && n < w_c4));
        }
      }
    }

    // The lane's four terms of each read of a row: where its tap lies beside the pixel, and its texel.
    var ty: array<i32, READS>;
    var tx: array<i32, READS>;
    var offset: array<i32, READS>;
    for (var q = 0u; q < READS; q++) { // unrolled
      let k = k0 + (q * LANES + lane) * 4;
      let t = k / s.in_c;
      ty[q] = offset_of(taps_y.x + t / taps_x.z * taps_y.y, phase.x, s.pad_h, s.dil_h, s.stride_h);
      tx[q] = offset_of(taps_x.x + t % taps_x.z * taps_x.y, phase.y, s.pad_w, s.dil_w, s.stride_w);
      offset[q] = (ty[q] * i32(s.in_w) + tx[q]) * i32(in_c4) + i32((k - t * s.in_c) / 4 + FIRST_TEXEL);
      ty[q] = select(ty[q], 0x20000000, k >= terms);
    }

    var oy = y0;
    var ox = x0;
    var image = image0;
    for (var r = 0u; r < rows; r++) {
      let py = i32(oy * scale.x);
      let px = i32(ox * scale.y);
      let base = ((i32(image * s.in_h) + py) * i32(s.in_w) + px) * i32(in_c4);
      var inside: array<bool, READS>;
      var any = !begun;
      for (var q = 0u; q < READS; q++) { // unrolled
        inside[q] = u32(py + ty[q]) < s.in_h && u32(px + tx[q]) < s.in_w;
        any |= inside[q];
      }
      if (subgroupAny(any)) {
        var x: array<vec4f, READS>;
        for (var q = 0u; q < READS; q++) { // unrolled
          x[q] = load_a(select(OUTSIDE, u32(base + offset[q]), inside[q]));
        }
        let at = r * HALVES * LANES + lane;
        var c: array<vec4f, HALVES>;
        for (var h = 0u; h < HALVES; h++) { // unrolled
          c[h] = vec4f();
          if (begun) {
            c[h] = sums[at + h * LANES];
          }
        }
        for (var b = 0u; b < BLOCKS; b++) { // unrolled
          for (var j = 0u; j < 16u; j++) { // unrolled
            let v = vec4f(subgroupShuffle(x[(b * 16 + j) / (4 * LANES)][j % 4], (b * 16 + j) / 4 % LANES));
            for (var h = 0u; h < HALVES; h++) { // unrolled
              c[h] = fma(v, panel[(b * 16 + j) * HALVES + h], c[h]);
            }
          }
          // Else the compiler would sum one half after the other: too few independent sums to keep the processor busy.
          c[0] = select(c[0], c[HALVES - 1], never);
        }
        for (var h = 0u; h < HALVES; h++) { // unrolled
          sums[at + h * LANES] = c[h];
        }
      }
      let end_x = ox + 1 == width;
      ox = select(ox + 1, 0, end_x);
      let end_y = end_x && oy + 1 == height;
      oy = select(oy + u32(end_x), 0, end_y);
      image += u32(end_y);
    }
    begun = true;
  }

  var values: array<array<f32, VALUES>, HALVES * 4>;
  for (var g = 0u; g < HALVES * 4; g++) {
    values[g] = channel_values(min(column[g], s.out_c - 1));
  }
  var oy = y0;
  var ox = x0;
  var image = image0;
  for (var r = 0u; r < rows; r++) {
    let pixel = (image * s.out_h + oy * step.x + phase.x) * s.out_w + ox * step.y + phase.y;
    for (var h = 0u; h < HALVES; h++) {
      // Where no tap reaches the map, nothing was summed.
      let v = select(vec4f(), sums[(r * HALVES + h) * LANES + lane], begun);
      for (var g = 0u; g < 4; g++) {
        if (column[h * 4 + g] < s.out_c) {
          store(pixel, column[h * 4 + g], v[g], values[h * 4 + g]);
        }
      }
    }
    let end_x = ox + 1 == width;
    ox = select(ox + 1, 0, end_x);
    let end_y = end_x && oy + 1 == height;
    oy = select(oy + u32(end_x), 0, end_y);
    image += u32(end_y);
  }
}
