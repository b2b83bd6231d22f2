"""The rate of a product of two square matrices in PyTorch: f16 on CUDA, f32 elsewhere.

python3 bench/gpu/pytorch_product.py --size 4096 --json FILE
"""

import argparse
import json
import time

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json")
    args = parser.parse_args()
    device = torch.device(args.device)
    has_cuda = device.type == "cuda"
    dtype = torch.float16 if has_cuda else torch.float32
    wait = torch.cuda.synchronize if has_cuda else lambda: None
    a, b = (torch.rand(args.size, args.size, device=device, dtype=dtype) - 0.5 for _ in range(2))
    rates = []
    for _ in range(12):
        wait()
        begin = time.perf_counter()
        for _ in range(10):
            a @ b
        wait()
        rates.append(10 * 2 * args.size**3 / (time.perf_counter() - begin) / 1e9)
    name = torch.cuda.get_device_name() if has_cuda else "cpu"
    report = {"device": name, "torch": torch.__version__, "dtype": str(dtype), "size": args.size, "gflops": max(rates)}
    print(f"{dtype} product of {args.size}x{args.size}: {max(rates):.0f} GFLOP/s on {name}, torch {torch.__version__}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file)


if __name__ == "__main__":
    main()
