"""Images per second of CPU time that PyTorch's DataLoader reads and augments with Pillow and torchvision, as PrevMatch does.

    npm run bench -- --only loader --photographs FOLDER    # ours; keeps its photographs
    python3 bench/peers/loader.py FOLDER                   # the same photographs

The samples are bytes, as ours; with --normalize they are float32, as those of PrevMatch.
"""

import argparse
import glob
import os
import random
import resource

import numpy as np
import PIL
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

BATCH = 8
CROPS = {'Pascal': 321, 'Cityscapes': 801}
PADDING = 254


def resize(image, label):
    width, height = image.size
    longest = max(width, height)
    long_side = random.randint(int(longest * 0.5), int(longest * 2))
    scale = long_side / longest
    size = (long_side, int(height * scale + 0.5)) if width >= height else (int(width * scale + 0.5), long_side)
    return image.resize(size, Image.BILINEAR), label.resize(size, Image.NEAREST)


def crop(image, label, size, fill):
    width, height = image.size
    border = (0, 0, max(size - width, 0), max(size - height, 0))
    x, y = random.randint(0, max(width - size, 0)), random.randint(0, max(height - size, 0))
    box = (x, y, x + size, y + size)
    return ImageOps.expand(image, border, 0).crop(box), ImageOps.expand(label, border, fill).crop(box)


def weak(image, label, size, fill):
    image, label = crop(*resize(image, label), size, fill)
    if random.random() < 0.5:
        return image.transpose(Image.FLIP_LEFT_RIGHT), label.transpose(Image.FLIP_LEFT_RIGHT)
    return image, label


jitter = transforms.ColorJitter(0.5, 0.5, 0.5, 0.25)
grayscale = transforms.RandomGrayscale(0.2)


def strong(image):
    if random.random() < 0.8:
        image = jitter(image)
    image = grayscale(image)
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))
    return image


def cutmix_box(size):
    box = torch.zeros(size, size, dtype=torch.uint8)
    if random.random() > 0.5:
        return box
    area = random.uniform(0.02, 0.4) * size * size
    while True:
        ratio = random.uniform(0.3, 1 / 0.3)
        width, height = int((area / ratio) ** 0.5), int((area * ratio) ** 0.5)
        x, y = random.randrange(size), random.randrange(size)
        if x + width <= size and y + height <= size:
            box[y:y + height, x:x + width] = 1
            return box


class Photographs(Dataset):
    def __init__(self, folder, stream, crop, images, normalize):
        self.files = sorted(file for file in glob.glob(f'{folder}/*') if not file.endswith('-label.png'))
        self.stream, self.crop, self.images = stream, crop, images
        self.normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if normalize else None

    def __len__(self):
        return self.images

    def tensor(self, image):
        return self.normalize(F.to_tensor(image)) if self.normalize else torch.from_numpy(np.array(image))

    def __getitem__(self, index):
        file = self.files[index % len(self.files)]
        image = Image.open(file).convert('RGB')
        if self.stream == 'labeled':
            label = Image.open(os.path.splitext(file)[0] + '-label.png')
            image, label = weak(image, label, self.crop, 255)
            return self.tensor(image), torch.from_numpy(np.array(label))
        image, label = weak(image, Image.new('L', image.size), self.crop, PADDING)
        padding = torch.from_numpy(np.where(np.array(label) == PADDING, 255, 0).astype(np.uint8))
        views = [self.tensor(view) for view in (image, strong(image), strong(image))]
        return *views, padding, cutmix_box(self.crop), cutmix_box(self.crop)


def cpu_seconds():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('folder')
    parser.add_argument('--kind', choices=CROPS)
    parser.add_argument('--stream', choices=['labeled', 'unlabeled'])
    parser.add_argument('--images', type=int, default=200)
    parser.add_argument('--normalize', action='store_true')
    options = parser.parse_args()
    simd = 'SIMD' if 'post' in PIL.__version__ else 'no SIMD'
    print(f'PyTorch {torch.__version__}, Pillow {PIL.__version__} ({simd})', flush=True)
    for kind in [options.kind] if options.kind else CROPS:
        for stream in [options.stream] if options.stream else ['labeled', 'unlabeled']:
            data = Photographs(os.path.join(options.folder, kind), stream, CROPS[kind], options.images, options.normalize)
            started = cpu_seconds()
            # The worker ends with the epoch, and only then counts.
            images = sum(len(batch[0]) for batch in DataLoader(data, BATCH, num_workers=1))
            rate = images / (cpu_seconds() - started)
            print(f'{kind}, crop {CROPS[kind]}, {stream}: {rate:.1f} images per second of CPU time', flush=True)


if __name__ == '__main__':
    main()
