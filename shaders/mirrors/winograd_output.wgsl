// The tiles of 3x3 pixels or taps that products of Winograd's convolutions F(3x3, 3x3) stand for, see
// `winograd_transform.wgsl`.
const WEIGHTS = false;
const Y_BINDING = 2u;
const VALUES = 1u;
alias U = f32;

// p [25, tiles, out_c filled up to a multiple of four], y [images, out_h, out_w, out_c]; or WEIGHTS: y [3, 3, tiles, out_c].
// Grid: tiles along x and z, 32 channels along y.
struct Shape {
  out_h: u32, out_w: u32, out_c: u32, tiles: u32,
  grid_x: u32, first: u32, per_image: u32, across: u32,
  dil: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> p: array<vec4f>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<U>;

// What `store` needs of an output channel, loaded once for all pixels.
fn channel_values(n: u32) -> array<f32, VALUES> {
  return array<f32, VALUES>();
}

fn store(pixel: u32, n: u32, v: f32, values: array<f32, VALUES>) {
  y[pixel * s.out_c + n] = U(v);
}

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

// The transpose of `expand`.
fn contract(d: array<vec4f, 5>) -> array<vec4f, 3> {
  let e = d[0] + d[1];
  let f = d[2] + d[3];
  let o = d[0] - d[1];
  let q = d[2] - d[3];
  return array<vec4f, 3>(
    e + f, fma(vec4f(0.375), o, 1.125 * q), fma(vec4f(0.140625), e, fma(vec4f(1.265625), f, d[4])));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let c4 = (s.out_c + 3) / 4;
  let tile = wg.x + wg.z * s.grid_x;
  let quad = wg.y * 8 + lane;
  if (tile >= s.tiles || quad >= c4) {
    return;
  }
  var rows: array<array<vec4f, 3>, 5>;
  for (var i = 0u; i < 5u; i++) { // unrolled
    var line: array<vec4f, 5>;
    for (var j = 0u; j < 5u; j++) { // unrolled
      line[j] = p[((i * 5 + j) * s.tiles + tile) * c4 + quad];
    }
    rows[i] = contract(line);
  }
  let image = (s.first + tile) / s.per_image;
  let place = s.first + tile - image * s.per_image;
  let y0 = begin_of(place / s.across, s.out_h);
  let x0 = begin_of(place % s.across, s.out_w);
  var values: array<array<f32, VALUES>, 4>;
  for (var g = 0u; g < 4u; g++) { // unrolled
    values[g] = channel_values(min(quad * 4 + g, s.out_c - 1));
  }
  for (var j = 0u; j < 3u; j++) { // unrolled
    let column = contract(array<vec4f, 5>(rows[0][j], rows[1][j], rows[2][j], rows[3][j], rows[4][j]));
    for (var i = 0u; i < 3u; i++) { // unrolled
      let oy = y0 + i * s.dil;
      let ox = x0 + j * s.dil;
      let pixel = select((image * s.out_h + oy) * s.out_w + ox, (i * 3 + j) * s.tiles + tile, WEIGHTS);
      if (WEIGHTS || (oy < s.out_h && ox < s.out_w)) {
        for (var g = 0u; g < 4u; g++) { // unrolled
          if (quad * 4 + g < s.out_c) {
            store(pixel, quad * 4 + g, column[i][g], values[g]);
          }
        }
      }
    }
  }
}
