// Bilinear resize: x [N, XH, XW, C] → y [N, YH, YW, C]. Either the centres of the corner pixels coincide, as with
// align_corners, or with HALF_PIXEL the borders of the images do. A thread walks along a chunk of a row of y
// and keeps the two columns of x that it is between, blended vertically. The channels of y may be some of a larger tensor's:
// `pitch` channels, of which they are those from `first_channel` on.
const HALF_PIXEL = false;
alias T = f32;
alias U = f32;
alias V = f32;

struct Uniforms {
  threads: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  chunks: u32, per_chunk: u32, scale_h: f32, scale_w: f32, step_w: f32, grid_x: u32,
  pitch: u32, first_channel: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<U>;

/// Where a row or column of y lies among those of x.
fn place(at: u32, scale: f32) -> f32 {
  if (HALF_PIXEL) {
    return max((f32(at) + 0.5f) * scale - 0.5f, 0f);
  }
  return f32(at) * scale;
}

/// The first column of y that lies at or behind a column of x other than the first.
fn first_at(column: u32) -> u32 {
  if (HALF_PIXEL) {
    return u32(ceil((f32(column) + 0.5f) * u.step_w - 0.5f));
  }
  return u32(ceil(f32(column) * u.step_w));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (group.x + group.y * u.grid_x) * 64u + lane;
  if (thread >= u.threads) {
    return;
  }
  let channels = u.channels;
  let end_of_row = u.y_width;
  let scale_w = u.scale_w;
  let last = u.x_width - 1u;
  let part = thread / channels;
  let c = thread - part * channels;
  let line = part / u.chunks;
  let n = line / u.y_height;
  let h = place(line - n * u.y_height, u.scale_h);
  let h0 = min(u32(h), u.x_height - 1u);
  let h1 = min(h0 + 1u, u.x_height - 1u);
  let fh = h - f32(h0);
  let above = (n * u.x_height + h0) * u.x_width * channels + c;
  let below = (n * u.x_height + h1) * u.x_width * channels + c;

  var w = (part - line * u.chunks) * u.per_chunk;
  let end = min(w + u.per_chunk, end_of_row);
  let pitch = u.pitch;
  var i = (line * end_of_row + w) * pitch + u.first_channel + c;
  var column = min(u32(place(w, scale_w)), last);
  var at = column * channels;
  var left = (1f - fh) * V(x[above + at]) + fh * V(x[below + at]);
  while (w < end) {
    at = min(column + 1u, last) * channels;
    let right = (1f - fh) * V(x[above + at]) + fh * V(x[below + at]);
    // Which side of its border an output is put on by rounding makes no difference: the blend is continuous there.
    let next = select(first_at(column + 1u), end, column >= last);
    for (let stop = min(next, end); w < stop; w++) {
      let fw = place(w, scale_w) - f32(column);
      y[i] = U((1f - fw) * left + fw * right);
      i += pitch;
    }
    left = right;
    column++;
  }
}
