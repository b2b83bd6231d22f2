// Depthwise convolution and its input gradient for CPU drivers: a thread computes four channels of blocks of R by P pixels, which
// lie so far apart that their windows share what is read. The map and the weights are mirrors: a lane reads four elements of
// a texture in the time in which it reads one of a buffer.
const R = 3u;
const P = 3u;
const SUMS = 9u; // R * P
// Rows and columns of the window that reach a pixel: of the input gradient those of one phase of the stride.
const DOWN = 3u;
const TAPS = 3u;
const WEIGHTS = 9u; // DOWN * TAPS
// By how many of their rows or columns the windows of neighbouring pixels of a block are apart.
const STEP = 1u;
// What a block reads.
const ROWS = 5u; // (R - 1) * STEP + DOWN
const SPAN = 5u; // (P - 1) * STEP + TAPS
alias A = texture_storage_2d<rgba32float, read>;
alias B = texture_storage_2d<rgba32float, read>;
alias U = vec4f;
const INPUT_GRAD = false;

// Forward: a = x [n, in_h, in_w, channels], w [kh, kw, 1, channels], y [n, out_h, out_w, channels].
// Input gradient: a = dy [n, in_h, in_w, channels], y = dx [n, out_h, out_w, channels].
// Grid: 64 threads each of chunks of bands, which are R rows of blocks, for channels / 4, spread over x and y; z: phases (input gradient: stride_h * stride_w, else 1).
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32,
  // Pixels of the map read between taps that follow one another, and pixels of the phase between those of a block.
  reach: u32, spacing: u32,
  // Bands of a thread.
  bands: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var a: A;
@group(0) @binding(2) var w: B;
@group(0) @binding(3) var<storage, read_write> y: array<U>;

// Texel t of a tensor lies behind a row of zeros.
const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

fn load_a(t: u32) -> vec4f {
  return textureLoad(a, vec2u(t & 4095, t >> 12));
}

fn load_w(t: u32) -> vec4f {
  return textureLoad(w, vec2u(t & 4095, t >> 12));
}

// The taps of one axis that reach the pixels of a phase, in the order of what they read.
struct Window {
  // Where the first one reads beside a pixel.
  offset: i32,
  count: u32,
  first: i32,
  apart: i32,
}

fn window_of(phase: u32, pad: u32, dil: u32, stride: u32, count: u32) -> Window {
  if (!INPUT_GRAD) {
    return Window(-i32(pad), count, 0, 1);
  }
  var window = Window(0, 0, 0, 0);
  for (var k = 0u; k < count; k++) {
    let offset = i32(phase + pad) - i32(k * dil);
    if (offset % i32(stride) == 0) {
      window = Window(offset / i32(stride), window.count + 1, i32(k), window.first - i32(k));
    }
  }
  return window;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) id: u32,
) {
  let step = select(vec2u(1), vec2u(s.stride_h, s.stride_w), INPUT_GRAD);
  let scale = select(vec2i(i32(s.stride_h), i32(s.stride_w)), vec2i(1), INPUT_GRAD);
  let phase = vec2u(wg.z / step.y, wg.z % step.y);
  let rows = (s.out_h + step.x - 1 - phase.x) / step.x;
  let cols = (s.out_w + step.y - 1 - phase.y) / step.y;
  let packs = s.out_c / 4;
  let e = (wg.y * grid.x + wg.x) * 64 + id;
  let chunk = e / packs;
  let q = e - chunk * packs;
  let bands = (rows + s.spacing * R - 1) / (s.spacing * R) * s.spacing;
  let begin = chunk * s.bands;
  let end = min(begin + s.bands, s.n * bands);
  if (begin >= end) {
    return;
  }

  let down = window_of(phase.x, s.pad_h, s.dil_h, s.stride_h, s.kh);
  let across = window_of(phase.y, s.pad_w, s.dil_w, s.stride_w, s.kw);
  var weights: array<vec4f, WEIGHTS>;
  for (var j = 0u; j < DOWN; j++) { // unrolled
    for (var i = 0u; i < TAPS; i++) { // unrolled
      let tap = (down.first + i32(j) * down.apart) * i32(s.kw) + across.first + i32(i) * across.apart;
      let is_tap = j < down.count && i < across.count;
      weights[j * TAPS + i] = load_w(select(OUTSIDE, FIRST_TEXEL + u32(tap) * packs + q, is_tap));
    }
  }

  for (var band = begin; band < end; band++) {
    let image = band / bands;
    let b = band - image * bands;
    let oy = b % s.spacing + b / s.spacing * s.spacing * R;
    let iy = i32(oy) * scale.x + down.offset;
    let map = FIRST_TEXEL + image * s.in_h * s.in_w * packs + q;
    let written = (image * s.out_h + oy * step.x + phase.x) * s.out_w + phase.y;
    for (var residue = 0u; residue < s.spacing; residue++) {
      for (var ox = residue; ox < cols; ox += s.spacing * P) {
        let ix = i32(ox) * scale.y + across.offset;
        // Without a value it keeps that of the turn before on Mesa's CPU driver.
        var sums = array<vec4f, SUMS>();
        for (var j = 0u; j < ROWS; j++) { // unrolled
          let y_at = u32(iy + i32(j * s.reach));
          let row = map + y_at * s.in_w * packs;
          var texels: array<vec4f, SPAN>;
          for (var i = 0u; i < SPAN; i++) { // unrolled
            let x_at = u32(ix + i32(i * s.reach));
            texels[i] = load_a(select(OUTSIDE, row + x_at * packs, y_at < s.in_h && x_at < s.in_w));
          }
          for (var r = 0u; r < R; r++) { // unrolled
            if (j >= r * STEP && j < r * STEP + DOWN) {
              for (var p = 0u; p < P; p++) { // unrolled
                for (var i = 0u; i < TAPS; i++) { // unrolled
                  let weight = weights[(j + R * STEP * DOWN - r * STEP) % DOWN * TAPS + i];
                  sums[r * P + p] = fma(texels[p * STEP + i], weight, sums[r * P + p]);
                }
              }
            }
          }
        }
        for (var r = 0u; r < R; r++) { // unrolled
          if (oy + r * s.spacing < rows) {
            let line = written + r * s.spacing * step.x * s.out_w;
            for (var p = 0u; p < P; p++) { // unrolled
              let x = ox + p * s.spacing;
              if (x < cols) {
                y[(line + x * step.y) * packs + q] = U(sums[r * P + p]);
              }
            }
          }
        }
      }
    }
  }
}
