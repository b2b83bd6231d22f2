// The values that Winograd's convolutions F(3x3, 3x3) multiply: 5x5 for each tile and channel, from windows of 5x5 pixels
// that begin three apart, or from 3x3 pixels or taps. For CPU drivers.
// A convolution of d by g along one axis is contract(expand(g) * interpolate(d)), see `winograd_output.wgsl`: Toom and Cook's
// products of polynomials, transposed, at the points 3/8, -3/8, 9/8, -9/8 and infinity, which keep errors small (Barabasz et
// al., "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020).
const SIZE = 5u;
const TRANSPOSED = false;
// The tiles are the weights [3, 3, tiles, c] of a channel each, mirrored along both axes where TRANSPOSED.
const WEIGHTS = false;
alias T = vec4f;

// x [images, height, width, c], a mirror whose channels are filled up to a multiple of four.
// y [25, filled, c filled up], zeros behind the tiles; or TRANSPOSED: y [25, c filled up, filled], of f32.
// The tiles of an image are those of an axis by those of the other, which come one phase of the dilation after the other.
// Grid: tiles along x and z, 32 channels along y; TRANSPOSED: 8 tiles, 4 channels.
struct Shape {
  c: u32, tiles: u32, filled: u32, grid_x: u32,
  first: u32, per_image: u32, across: u32, out_h: u32,
  out_w: u32, dil: u32, height: u32, width: u32,
  pad: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var x: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

// Where tile t of an axis of `size` written pixels begins. The first size % dil phases have one pixel more.
fn begin_of(t: u32, size: u32) -> u32 {
  let larger = (size / s.dil + 3) / 3;
  let smaller = (size / s.dil + 2) / 3;
  let rest = size % s.dil;
  if (t < rest * larger) {
    return t / larger + t % larger * 3 * s.dil;
  }
  let u = t - rest * larger;
  return rest + u / smaller + u % smaller * 3 * s.dil;
}

// The values at the points of polynomials with three coefficients.
fn expand(d: array<vec4f, SIZE>) -> array<vec4f, 5> {
  let e = fma(vec4f(0.140625), d[2], d[0]);
  let f = fma(vec4f(1.265625), d[2], d[0]);
  return array<vec4f, 5>(
    fma(vec4f(0.375), d[1], e), fma(vec4f(-0.375), d[1], e), fma(vec4f(1.125), d[1], f), fma(vec4f(-1.125), d[1], f), d[2]);
}

// The transposed interpolation.
fn interpolate(d: array<vec4f, SIZE>) -> array<vec4f, 5> {
  let e = fma(vec4f(-32. / 27.), d[3], 1.5 * d[1]);
  let o = fma(vec4f(-4. / 9.), d[2], 0.5625 * d[0]);
  let f = fma(vec4f(32. / 81.), d[3], (-1. / 18.) * d[1]);
  let p = fma(vec4f(4. / 9.), d[2], -0.0625 * d[0]);
  return array<vec4f, 5>(
    o + e, o - e, p + f, p - f, fma(vec4f(0.177978515625), d[0], fma(vec4f(-1.40625), d[2], d[SIZE - 1])));
}

fn transform(d: array<vec4f, SIZE>) -> array<vec4f, 5> {
  return interpolate(d);
}

fn store(point: u32, tile: u32, quad: u32, v: vec4f) {
  y[(point * s.filled + tile) * ((s.c + 3) / 4) + quad] = T(v);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let c4 = (s.c + 3) / 4;
  let index = wg.x + wg.z * s.grid_x;
  let tile = select(index, index * 8 + lane, TRANSPOSED);
  let quad = select(wg.y * 8 + lane, wg.y, TRANSPOSED);
  if (tile >= s.filled || quad >= c4) {
    return;
  }
  let image = (s.first + tile) / s.per_image;
  let place = s.first + tile - image * s.per_image;
  let y0 = i32(begin_of(place / s.across, s.out_h)) - i32(s.pad);
  let x0 = i32(begin_of(place % s.across, s.out_w)) - i32(s.pad);
  var rows: array<array<vec4f, 5>, SIZE>;
  for (var i = 0u; i < SIZE; i++) { // unrolled
    var line: array<vec4f, SIZE>;
    let iy = y0 + i32(i * s.dil);
    for (var j = 0u; j < SIZE; j++) { // unrolled
      var t: u32;
      if (WEIGHTS) {
        let tap = select(i * 3 + j, 8 - i * 3 - j, TRANSPOSED);
        t = select(OUTSIDE, FIRST_TEXEL + (tap * s.tiles + tile) * c4 + quad, tile < s.tiles);
      } else {
        let ix = x0 + i32(j * s.dil);
        let at = (i32(image * s.height) + iy) * i32(s.width) + ix;
        let inside = u32(iy) < s.height && u32(ix) < s.width && tile < s.tiles;
        t = select(OUTSIDE, FIRST_TEXEL + u32(at) * c4 + quad, inside);
      }
      line[j] = textureLoad(x, vec2u(t & 4095, t >> 12));
    }
    rows[i] = transform(line);
  }
  for (var j = 0u; j < 5u; j++) { // unrolled
    var line: array<vec4f, SIZE>;
    for (var i = 0u; i < SIZE; i++) { // unrolled
      line[i] = rows[i][j];
    }
    let column = transform(line);
    for (var i = 0u; i < 5u; i++) { // unrolled
      store(i * 5 + j, tile, quad, column[i]);
    }
  }
}
