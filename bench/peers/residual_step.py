"""Times the training step of bench/residual.ts in PyTorch: python3 bench/peers/residual_step.py [--device cuda]

Prints the loss of the third step, for a look whether it learns, and the median of the milliseconds of a step.
"""

import argparse
import os
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

BATCH, SIZE, CLASSES, WIDTHS = 4, 65, 5, (16, 32, 64)


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
        blocks = []
        for stage, width in enumerate(WIDTHS):
            blocks.append(Block(width // 2 if stage else width, width, 2 if stage else 1))
            blocks.append(Block(width, width, 1))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(WIDTHS[-1], CLASSES, 1, bias=False)

    def forward(self, x):
        y = self.head(self.blocks(self.stem(x)))
        return F.interpolate(y, (SIZE, SIZE), mode='bilinear', align_corners=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--device', default='cpu')
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    image = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    labels = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), device=device)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), labels)
        loss.backward()
        optimizer.step()
        return loss

    def wait():
        if device.type == 'cuda':
            torch.cuda.synchronize()

    losses = [step().item() for _ in range(10)]
    times = []
    for _ in range(9):
        wait()
        started = time.perf_counter()
        for _ in range(5):
            step()
        wait()
        times.append((time.perf_counter() - started) / 5 * 1000)
    print(f'PyTorch {torch.__version__}, {device}, {torch.get_num_threads()} threads: loss {losses[2]:.3f}, '
          f'median {statistics.median(times):.1f} ms of {min(times):.1f} to {max(times):.1f}')


if __name__ == '__main__':
    main()
