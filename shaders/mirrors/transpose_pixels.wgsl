// y [c, filled] = x [n, places, c] with the channels in front, and pixels ordered by place and then image; zeros behind them.
// x is a mirror whose rows are filled up to a multiple of four channels.
// Grid: tiles of 8 pixels, tiles of 64 channels.
alias A = texture_storage_2d<rgba32float, read>;
alias T = f32;
struct Shape { n: u32, places: u32, c: u32, filled: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var x: A;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

const FIRST_TEXEL = 4096u;
const OUTSIDE = 0u;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let quads = (s.c + 3) / 4;
  let pixel = wg.x * 8 + lane;
  let place = pixel / s.n;
  let base = FIRST_TEXEL + ((pixel - place * s.n) * s.places + place) * quads;
  for (var q = wg.y * 16; q < min(wg.y * 16 + 16, quads); q++) {
    let t = select(OUTSIDE, base + q, place < s.places);
    let v = textureLoad(x, vec2u(t & 4095, t >> 12));
    for (var i = 0u; i < 4; i++) {
      if (q * 4 + i < s.c && pixel < s.filled) {
        y[(q * 4 + i) * s.filled + pixel] = T(v[i]);
      }
    }
  }
}
