"""The PrevMatch step of `npm run bench -- --only 'training step prevmatch'` in PyTorch: the same model, sizes and losses.

Eager, one previous model, with AMP (channels_last and contiguous) and in float32. Prints a line for each; --json writes
them to a file, anew behind each.

    python3 bench/pytorch_step.py --crop 321 --batch 8
"""

import argparse
import copy
import json
import os
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


def unit(cin, cout, kernel=1, stride=1, dilation=1, relu=True):
    padding = dilation * (kernel // 2)
    layers = [nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class Bottleneck(nn.Module):
    def __init__(self, cin, planes, stride, dilation):
        super().__init__()
        cout = 4 * planes
        self.body = nn.Sequential(
            unit(cin, planes), unit(planes, planes, 3, stride, dilation), unit(planes, cout, relu=False)
        )
        self.shortcut = unit(cin, cout, stride=stride, relu=False) if stride > 1 or cin != cout else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class Pyramid(nn.Module):
    def __init__(self, cin, cout, dilations):
        super().__init__()
        self.branches = nn.ModuleList([unit(cin, cout)] + [unit(cin, cout, 3, dilation=d) for d in dilations])
        self.pooled = unit(cin, cout)
        self.project = unit((len(dilations) + 2) * cout, cout)

    def forward(self, x):
        mean = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([branch(x) for branch in self.branches] + [mean], 1))


class DeepLabV3Plus(nn.Module):
    """Deep-stem ResNet-50, output stride 16, decoder at a quarter of the size."""

    def __init__(self, classes, stem=(64, 64, 128), planes=(64, 128, 256, 512), blocks=(3, 4, 6, 3), wide=256, low=48):
        super().__init__()
        a, b, c = stem
        self.stem = nn.Sequential(unit(3, a, 3, 2), unit(a, b, 3), unit(b, c, 3), nn.MaxPool2d(3, 2, 1))
        stages, cin = [], c
        for i, (plane, count) in enumerate(zip(planes, blocks)):
            # layer4 keeps its size, and dilates its blocks after the first.
            stride, dilation = (2 if i in (1, 2) else 1), (2 if i == 3 else 1)
            stages.append(
                nn.Sequential(
                    Bottleneck(cin, plane, stride, 1), *(Bottleneck(4 * plane, plane, 1, dilation) for _ in range(count - 1))
                )
            )
            cin = 4 * plane
        self.layer1, self.deeper = stages[0], nn.Sequential(*stages[1:])
        self.head = Pyramid(cin, wide, (6, 12, 18))
        self.reduce = unit(4 * planes[0], low)
        self.fuse = nn.Sequential(unit(low + wide, wide, 3), unit(wide, wide, 3))
        self.classifier = nn.Conv2d(wide, classes, 1)

    def features(self, x):
        c1 = self.layer1(self.stem(x))
        return c1, self.deeper(c1)

    def decode(self, c1, c4):
        deep = F.interpolate(self.head(c4), c1.shape[2:], mode="bilinear", align_corners=True)
        return self.classifier(self.fuse(torch.cat([self.reduce(c1), deep], 1)))


def upsample(logits, size):
    return F.interpolate(logits, size, mode="bilinear", align_corners=True)


def pseudo_labels(logits, size):
    return upsample(logits.float(), size).softmax(1).max(1)


def confidence_loss(logits, confidence, label, ignore, threshold):
    """Mean over the pixels that count of the losses whose pseudo-label is confident enough."""
    loss = F.cross_entropy(logits, label, reduction="none")
    valid = ignore != 255
    return (loss * ((confidence >= threshold) & valid)).sum() / valid.sum()


def guided(students, weak, mixed, boxes, ignore, ignore_mix, threshold):
    """The losses of both strong views and of the perturbed features against one guide, weighted."""
    losses = []
    for logits, box in zip(students[:2], boxes):
        confidence, label = (torch.where(box, b, a) for a, b in zip(weak, mixed))
        losses.append(confidence_loss(logits, confidence, label, torch.where(box, ignore_mix, ignore), threshold))
    perturbed = confidence_loss(students[2], *weak, ignore, threshold)
    return 0.25 * losses[0] + 0.25 * losses[1] + 0.5 * perturbed


class Step:
    """A training step over images that lie in the host's memory as bytes."""

    def __init__(self, device, crop, batch, half, layout, widths):
        torch.manual_seed(0)
        classes = 21
        self.device, self.crop, self.batch, self.half, self.layout = device, crop, batch, half, layout
        self.model = DeepLabV3Plus(classes, **widths).to(device, memory_format=layout)
        self.previous = copy.deepcopy(self.model).eval()
        groups = [p for name, p in self.model.named_parameters() if name.startswith(("stem", "layer1", "deeper"))]
        backbone = {id(p) for p in groups}
        others = [p for p in self.model.parameters() if id(p) not in backbone]
        rates = [{"params": groups, "lr": 0.001}, {"params": others, "lr": 0.01}]
        self.optimizer = torch.optim.SGD(rates, momentum=0.9, weight_decay=1e-4)
        self.scaler = torch.cuda.amp.GradScaler(enabled=half)
        images = ("x", "weak", "strong1", "strong2", "weak_mix", "strong1_mix", "strong2_mix")
        self.images = {name: torch.randint(256, (batch, crop, crop, 3), dtype=torch.uint8) for name in images}
        maps = {"mask": classes, "ignore": 1, "ignore_mix": 1, "box1": 2, "box2": 2}
        self.maps = {name: torch.randint(n, (batch, crop, crop), dtype=torch.uint8) for name, n in maps.items()}
        if device.type == "cuda":
            self.images, self.maps = ({k: v.pin_memory() for k, v in d.items()} for d in (self.images, self.maps))
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self.deviation = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def image(self, name):
        x = self.images[name].to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return ((x.float() / 255 - self.mean) / self.deviation).contiguous(memory_format=self.layout)

    def run(self):
        size, batch, model = (self.crop, self.crop), self.batch, self.model
        maps = {name: value.to(self.device, non_blocking=True) for name, value in self.maps.items()}
        boxes = [maps[name].bool() for name in ("box1", "box2")]
        image = {name: self.image(name) for name in self.images}
        self.optimizer.zero_grad(set_to_none=True)
        # Where it is off, it still wants a type that the device has.
        dtype = torch.float16 if self.half else torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.half):
            with torch.no_grad():
                model.eval()
                mixed = pseudo_labels(model.decode(*model.features(image["weak_mix"])), size)
                # The probabilities of a single previous model stand for those of all.
                both = self.previous.decode(*self.previous.features(torch.cat([image["weak"], image["weak_mix"]])))
                past, past_mixed = (pseudo_labels(part, size) for part in both.chunk(2))
            model.train()
            features = model.features(torch.cat([image["x"], image["weak"]]))
            decoded = model.decode(*(torch.cat([x, F.dropout2d(x, 0.5)]) for x in features))
            logits, weak, _, perturbed = decoded.chunk(4)
            views = [
                torch.where(box[:, None], image[f"{name}_mix"], image[name])
                for box, name in zip(boxes, ("strong1", "strong2"))
            ]
            strong = model.decode(*model.features(torch.cat(views))).chunk(2)
            labels = pseudo_labels(weak.detach(), size)
            supervised = F.cross_entropy(upsample(logits, size), maps["mask"].long(), ignore_index=255)
            students = [upsample(x, size) for x in (*strong, perturbed)]
            others = (boxes, maps["ignore"], maps["ignore_mix"])
            own = guided(students, labels, mixed, *others, 0.95)
            guide = guided(students, past, past_mixed, *others, 0.9)
            loss = (supervised + own + guide) / 3
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()


def measure(device, crop, batch, half, layout, steps, seconds, widths):
    step = Step(device, crop, batch, half, layout, widths)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    begun = time.perf_counter()
    warm = min(10, steps)
    while len(times) < steps + warm and (len(times) <= warm or time.perf_counter() - begun < seconds):
        begin = time.perf_counter()
        # Reading the loss waits for the step.
        step.run()
        times.append(1000 * (time.perf_counter() - begin))
    return {
        "amp": half,
        "layout": "channels_last" if layout == torch.channels_last else "contiguous",
        "milliseconds": statistics.median(times[warm:]),
        "steps": len(times) - warm,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else 0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crop", type=int, default=321)
    parser.add_argument("--batch", type=int, default=8, help="labeled images, and as many unlabeled ones")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=25, help="of each variant; fewer steps are timed then")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", choices=("resnet50", "small"), default="resnet50")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    small = {"stem": (8, 8, 16), "planes": (8, 12, 16, 32), "blocks": (1, 2, 1, 2), "wide": 16, "low": 6}
    widths = small if args.model == "small" else {}
    device = torch.device(args.device)
    has_cuda = device.type == "cuda"
    report = {
        "device": torch.cuda.get_device_name() if has_cuda else "cpu",
        "torch": torch.__version__,
        "crop": args.crop,
        "images": [args.batch, args.batch],
        "variants": [],
    }
    if has_cuda:
        print(f"{report['device']}, torch {report['torch']}", flush=True)
    else:
        # By itself PyTorch takes half of the cores of some virtual machines.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        print("without CUDA: no AMP")
    variants = [(True, torch.channels_last), (True, torch.contiguous_format), (False, torch.channels_last)]
    for half, layout in variants if has_cuda else variants[2:]:
        result = measure(device, args.crop, args.batch, half, layout, args.steps, args.seconds, widths)
        report["variants"].append(result)
        name = f"{'AMP' if half else 'f32'}, {result['layout']}"
        peak = f"{result['peak_bytes'] / 2**20:.0f} MiB" if has_cuda else "not known"
        print(f"{name}: {result['milliseconds']:.2f} ms a step ({result['steps']} steps), peak {peak}", flush=True)
        if args.json:
            with open(args.json, "w") as file:
                json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
