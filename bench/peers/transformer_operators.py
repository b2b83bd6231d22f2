"""Times transformers' operators in PyTorch at the shapes of the bench: python3 bench/peers/transformer_operators.py
[--device cuda] [--crop 129] [--batch 4]

Prints the medians of the milliseconds of each, forward, and with the gradients of all inputs.
"""

import argparse
import os
import statistics
import time

import torch
from torch.nn import functional as F


def half(size):
    return (size + 1) // 2


def attention(heads):
    def run(q, k, v):
        n, _, channels = q.shape
        q, k, v = (t.view(n, -1, heads, channels // heads).transpose(1, 2) for t in (q, k, v))
        if hasattr(F, 'scaled_dot_product_attention'):
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) * (channels // heads) ** -0.5, -1) @ v
        return y.transpose(1, 2).reshape(n, -1, channels)

    return run


def layer_norm(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def rows(crop, batch):
    """Name, shape, function and the shapes of its inputs, as in cases/ (maps with channels first)."""
    s4 = half(half(crop))
    s16 = half(half(s4))
    reduced = -(-s4 // 8)
    yield 'layerNorm', 'stride 4', layer_norm, [(batch, s4 * s4, 64), (64,), (64,)]
    yield 'layerNorm', 'stride 16', layer_norm, [(batch, s16 * s16, 320), (320,), (320,)]
    yield 'gelu', 'stride 4', F.gelu, [(batch, s4 * s4, 256)]
    yield 'batchedMatmul', '64 products of 256x256x64', torch.matmul, [(64, 256, 64), (64, 64, 256)]
    for name, heads, queries, keys, channels in (
        ('stride 4, keys reduced eight times', 1, s4 * s4, reduced**2, 64),
        ('stride 16', 6, s16 * s16, s16 * s16, 384),
        ('DINOv2-Small, 518 pixels', 6, 1370, 1370, 384),
    ):
        shapes = [(batch, queries, channels), (batch, keys, channels), (batch, keys, channels)]
        yield 'attention', name, attention(heads), shapes
    for name, kernel, channels in (('four times', 4, 48), ('twice', 2, 96)):
        transposed = lambda x, w, k=kernel: F.conv_transpose2d(x, w, stride=k)
        shapes = [(batch, channels, 37, 37), (channels, channels, kernel, kernel)]
        yield 'convTranspose2d', f'{name}, DPT with DINOv2-Small', transposed, shapes


def median_time(device, run):
    times = []
    for i in range(12):
        start = time.perf_counter()
        run()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        if i >= 2:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--crop', type=int, default=129)
    parser.add_argument('--batch', type=int, default=4)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    for op, name, run, shapes in rows(args.crop, args.batch):
        inputs = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
        cotangent = torch.randn_like(run(*inputs))
        with torch.no_grad():
            forward = median_time(device, lambda: run(*inputs))
        both = median_time(device, lambda: torch.autograd.grad(run(*inputs), inputs, cotangent))
        print(f'{op:<16}{name:<38}{forward:9.2f} ms forward{both:9.2f} ms with gradients', flush=True)


if __name__ == '__main__':
    main()
