// softmax_max.wgsl of resize.wgsl, without the resized logits: x [N, XH, XW, C] → confidence, label [N, YH, YW]. A thread
// computes the pixels of a row of y between two columns of x, at most SLOTS at once, and reads each logit for all of them.
const SLOTS: u32 = 4;
alias T = f32;

struct Uniforms {
  threads: u32, channels: u32, x_height: u32, x_width: u32, y_height: u32, y_width: u32,
  scale_h: f32, scale_w: f32, step_w: f32, grid_x: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> confidence: array<f32>;
@group(0) @binding(3) var<storage, read_write> label: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (group.x + group.y * u.grid_x) * 64u + lane;
  if (thread >= u.threads) {
    return;
  }
  let channels = u.channels;
  let last = u.x_width - 1u;
  let line = thread / u.x_width;
  let column = thread - line * u.x_width;
  let n = line / u.y_height;
  let h = f32(line - n * u.y_height) * u.scale_h;
  let h0 = min(u32(h), u.x_height - 1u);
  let h1 = min(h0 + 1u, u.x_height - 1u);
  let fh = h - f32(h0);
  let above = (n * u.x_height + h0) * u.x_width;
  let below = (n * u.x_height + h1) * u.x_width;
  let i00 = (above + column) * channels;
  let i01 = (above + min(column + 1u, last)) * channels;
  let i10 = (below + column) * channels;
  let i11 = (below + min(column + 1u, last)) * channels;
  // Which side of a border a pixel is put on by rounding makes no difference: the blend is continuous there.
  let end = select(min(u32(ceil(f32(column + 1u) * u.step_w)), u.y_width), u.y_width, column == last);
  for (var w = min(u32(ceil(f32(column) * u.step_w)), u.y_width); w < end; w += SLOTS) {
    var fraction: array<f32, SLOTS>;
    var largest: array<f32, SLOTS>;
    var total: array<f32, SLOTS>;
    var best: array<u32, SLOTS>;
    for (var k = 0u; k < SLOTS; k++) {
      fraction[k] = f32(w + k) * u.scale_w - f32(column);
      largest[k] = -3.4e38f;
      total[k] = 0f;
      best[k] = 0u;
    }
    for (var c = 0u; c < channels; c++) {
      let left = (1f - fh) * f32(x[i00 + c]) + fh * f32(x[i10 + c]);
      let right = (1f - fh) * f32(x[i01 + c]) + fh * f32(x[i11 + c]);
      for (var k = 0u; k < SLOTS; k++) {
        let value = (1f - fraction[k]) * left + fraction[k] * right;
        let larger = value > largest[k];
        // One exponential serves both: a new largest value scales the sum down, another one adds to it.
        let smaller = exp(-abs(value - largest[k]));
        total[k] = select(total[k] + smaller, fma(total[k], smaller, 1f), larger);
        largest[k] = max(largest[k], value);
        best[k] = select(best[k], c, larger);
      }
    }
    for (var k = 0u; k < SLOTS; k++) {
      if (w + k < end) {
        confidence[line * u.y_width + w + k] = 1f / total[k];
        label[line * u.y_width + w + k] = best[k];
      }
    }
  }
}
