// Weight gradient of a depthwise convolution for CPU drivers: a thread owns four channels and sums over a slice of the pixels, in
// blocks of R by P, which lie so far apart that their windows share what is read. Both maps are mirrors, see
// `conv_depthwise.wgsl`.
const R = 3u;
const P = 3u;
const PIXELS = 9u; // R * P
// Rows and columns of the window.
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

// x [n, in_h, in_w, channels], dy [n, out_h, out_w, channels], dw [slices, kh, kw, 1, channels].
// Grid: 64 threads each of slices, which sum their share of the bands, R rows of blocks, for channels / 4.
struct Shape {
  n: u32, in_h: u32, in_w: u32, in_c: u32,
  out_h: u32, out_w: u32, out_c: u32, kh: u32,
  kw: u32, stride_h: u32, stride_w: u32, pad_h: u32,
  pad_w: u32, dil_h: u32, dil_w: u32, slices: u32,
  // Pixels between those of a block.
  spacing: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var x: A;
@group(0) @binding(2) var dy: B;
@group(0) @binding(3) var<storage, read_write> dw: array<U>;

// Texel t of a tensor lies behind a row of zeros.
const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

fn load_x(t: u32) -> vec4f {
  return textureLoad(x, vec2u(t & 4095, t >> 12));
}

fn load_dy(t: u32) -> vec4f {
  return textureLoad(dy, vec2u(t & 4095, t >> 12));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) id: u32) {
  let packs = s.out_c / 4;
  let e = wg.x * 64 + id;
  let slice = e / packs;
  let q = e - slice * packs;
  if (slice >= s.slices) {
    return;
  }
  let bands = (s.out_h + s.spacing * R - 1) / (s.spacing * R) * s.spacing;
  let each = (s.n * bands + s.slices - 1) / s.slices;
  let begin = slice * each;
  let end = min(begin + each, s.n * bands);
  var sums = array<vec4f, WEIGHTS>();
  for (var band = begin; band < end; band++) {
    let image = band / bands;
    let b = band - image * bands;
    let oy = b % s.spacing + b / s.spacing * s.spacing * R;
    let iy = i32(oy * s.stride_h) - i32(s.pad_h);
    let map = FIRST_TEXEL + image * s.in_h * s.in_w * packs + q;
    let line = FIRST_TEXEL + (image * s.out_h + oy) * s.out_w * packs + q;
    for (var residue = 0u; residue < s.spacing; residue++) {
      for (var ox = residue; ox < s.out_w; ox += s.spacing * P) {
        let ix = i32(ox * s.stride_w) - i32(s.pad_w);
        var grads: array<vec4f, PIXELS>;
        for (var r = 0u; r < R; r++) { // unrolled
          for (var p = 0u; p < P; p++) { // unrolled
            let inside = oy + r * s.spacing < s.out_h && ox + p * s.spacing < s.out_w;
            let at = line + (r * s.spacing * s.out_w + ox + p * s.spacing) * packs;
            grads[r * P + p] = load_dy(select(OUTSIDE, at, inside));
          }
        }
        for (var j = 0u; j < ROWS; j++) { // unrolled
          let y_at = u32(iy + i32(j * s.dil_h));
          let row = map + y_at * s.in_w * packs;
          var texels: array<vec4f, SPAN>;
          for (var i = 0u; i < SPAN; i++) { // unrolled
            let x_at = u32(ix + i32(i * s.dil_w));
            texels[i] = load_x(select(OUTSIDE, row + x_at * packs, y_at < s.in_h && x_at < s.in_w));
          }
          for (var r = 0u; r < R; r++) { // unrolled
            if (j >= r * STEP && j < r * STEP + DOWN) {
              for (var p = 0u; p < P; p++) { // unrolled
                for (var i = 0u; i < TAPS; i++) { // unrolled
                  let weight = (j + R * STEP * DOWN - r * STEP) % DOWN * TAPS + i;
                  sums[weight] = fma(texels[p * STEP + i], grads[r * P + p], sums[weight]);
                }
              }
            }
          }
        }
      }
    }
  }

  for (var i = 0u; i < WEIGHTS; i++) { // unrolled
    dw[(slice * WEIGHTS + i) * packs + q] = U(sums[i]);
  }
}
