"""The method of airbench94 with Muon, reimplemented: https://arxiv.org/abs/2404.00498 and the table of its repository.

`python -m benchmarks.airbench --dataset=folder --root=IMAGES --seed=0` prints seconds of training and test accuracies
as JSON, a line for each of `--runs` with seeds one above the other; on a GPU, where there is one, after a training that
is not counted: it compiles. Values of https://github.com/KellerJordan/cifar10-airbench (airbench94_muon): 8 epochs in
batches of 2,000; Muon at 0.24 for filters, which are kept at unit length, SGD with momentum 0.85 for biases and the
classifier, rates that fall in a straight line to 0; label smoothing 0.2; a frozen first convolution that whitens
patches of 2x2 pixels, its bias trained for 3 epochs, in which its rate falls to 0; norms that forget fast and have no
scale; shifts by up to 2 pixels, alternating flips. On a CPU on which `cvcc-zoo fit` chooses Winograd's algorithm by
itself, this uses it, too.
"""

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.clocks import now
from benchmarks.turns import Turns
from benchmarks.usual import MEAN, STD
from cvcc_zoo.classifier.patch_whitening import whiten_patches
from cvcc_zoo.cli.allocation import keep_freed_memory
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.augment import augment, make_augmentations
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.optim.newton_schulz import MUON, coefficients_of, orthogonalise
from cvcc_zoo.optim.replay import Replay
from cvcc_zoo.runs.winograd import default_winograd, replace
from cvcc_zoo.timing import default_device
from cvcc_zoo.zoo.creation import create

EPOCHS, BIAS_EPOCHS, BATCH = 8, 3, 2000
MUON_RATE, BIAS_RATE, HEAD_RATE, DECAY = 0.24, 0.053, 0.67, 2e-6 * BATCH
MUON_MOMENTUM, SGD_MOMENTUM = 0.6, 0.85
AHEAD = 5  # batches that are augmented at once on a GPU
SMOOTHING, NS_STEPS, EPS, CLASSES = 0.2, 3, 5e-4, 10
AUGMENTED: list[Any] = [{"name": "RandomCrop", "padding": 2, "mode": "reflect"}, "AlternatingFlip"]


def make_network(images: Tensor) -> Any:
    """Build the network, with its first convolution set from normalised images (N, 3, 32, 32)."""
    network: Any = create("cnn_fast", activation="gelu", classifier_bias=False).network
    network.to(images.device, memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum, module.eps = 0.4, 1e-12
            module.weight.requires_grad_(False)
        elif isinstance(module, nn.Conv2d):
            module.reset_parameters()
            if module.kernel_size == (3, 3):
                nn.init.dirac_(module.weight.data[: module.in_channels])
    network.stem[0].weight.requires_grad_(False)
    network.fc.reset_parameters()
    network.fc.weight.data /= network.fc.weight.data.std()
    whiten_patches(network, images, EPS)
    return network


class Filters:
    """Muon on filters that are scaled to unit norm before each step."""

    def __init__(self, filters: list[nn.Parameter]) -> None:
        self.filters = filters
        self.buffers = [torch.zeros_like(p) for p in filters]
        self.replay = Replay()  # one start for all kernels, on a GPU

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step."""
        ahead = []
        for p, buffer in zip(self.filters, self.buffers, strict=True):
            assert p.grad is not None
            buffer.mul_(MUON_MOMENTUM).add_(p.grad)
            ahead.append(p.grad.add(buffer, alpha=MUON_MOMENTUM).flatten(1))
        for p, direction in zip(self.filters, self.replay(_orthogonalised, ahead, "airbench"), strict=True):
            p.mul_(math.sqrt(len(p)) / p.norm()).sub_(direction.view_as(p), alpha=rate)


def _orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    dtype = torch.bfloat16 if matrices[0].is_cuda else torch.float32  # a CPU may compute in bfloat16 slowly
    return [orthogonalise(each, coefficients_of(MUON, NS_STEPS), dtype=dtype, eps=1e-7) for each in matrices]


def normalised(images: Tensor) -> Tensor:
    """Normalise images, uint8 0..255 or float 0..1, in channels_last."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    pixels = images if images.is_floating_point() else images.float() / 255
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def train(
    network: Any,
    run: Any,
    images: Tensor,
    labels: Tensor,
    options: argparse.Namespace,
    seed: int,
    turns: Turns | None = None,
) -> float:
    """Train the network from new weights, where the images are.

    Return the seconds from the first batch to the last, as `cvcc-zoo fit` counts them: the network is built, and its
    patches are whitened, before.
    """
    torch.manual_seed(seed)
    device, batches = images.device, options.batches
    augmentations = make_augmentations(AUGMENTED)
    network.load_state_dict(make_network(normalised(images[:5000])).state_dict())
    network.train()
    network.stem[0].bias.requires_grad_(True)
    filters = Filters([p for p in network.parameters() if p.ndim == 4 and p.requires_grad])
    first, head = network.stem[0].bias, network.fc.weight
    others = [p for p in network.parameters() if p.ndim == 1 and p.requires_grad and p is not first]
    trained = [([first], BIAS_RATE, BIAS_EPOCHS), (others, BIAS_RATE, EPOCHS), ([head], HEAD_RATE, EPOCHS)]
    groups = [{"params": params, "lr": rate, "weight_decay": DECAY / rate} for params, rate, _ in trained]
    sgd = torch.optim.SGD(groups, momentum=SGD_MOMENTUM, nesterov=True, fused=True)
    an_epoch = batches or len(images) // BATCH
    total, step = EPOCHS * an_epoch, 0
    ahead = AHEAD if device.type == "cuda" else 1
    start = now()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images)).to(device)
        for number in range(an_epoch):
            if turns:
                turns.next()
            if number % ahead == 0:
                chosen = order[number * BATCH : (number + ahead) * BATCH]
                made = augment(augmentations, images[chosen], labels[chosen], Draws(seed, epoch, chosen), CLASSES)
            x, y = (each[number % ahead * BATCH : (number % ahead + 1) * BATCH] for each in made)
            if step == BIAS_EPOCHS * an_epoch:
                first.requires_grad_(False)
                first.grad = None
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision != "32-true"):
                logits = run(normalised(x)).float() / head.shape[1]
            loss = F.cross_entropy(logits, y, label_smoothing=SMOOTHING, reduction="sum")
            network.zero_grad()
            torch.autograd.backward(loss)
            for group, (_, rate, epochs) in zip(sgd.param_groups, trained, strict=True):
                group["lr"] = rate * max(0.0, 1 - step / (epochs * an_epoch))
            sgd.step()
            filters.step(MUON_RATE * (1 - step / total))
            step += 1
    network.eval()
    return now() - start - (turns.waited if turns else 0.0)


def views(x: Tensor) -> Tensor:
    """Return six views of images (N, C, H, W): unchanged, shifted by a pixel up left and down right, and mirrored."""
    size = x.shape[-1]
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    shifted = [x, padded[..., :size, :size], padded[..., 2:, 2:]]
    return torch.stack([view for each in shifted for view in (each, each.flip(-1))])


@torch.no_grad()
def accuracies(score: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return test accuracies in [0, 1]: `plain`, with mirror images (`mirrored`), and with all `six_views`.

    `score` turns images, float 0..1, into logits; `images` are uint8 (N, C, H, W).
    """
    shares = [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]  # half for those that are not shifted
    weights = torch.tensor(shares, device=images.device)
    right = torch.zeros(3, dtype=torch.float64, device=images.device)
    for part, y in zip(torch.split(images, 500), torch.split(labels, 500), strict=True):
        logits = torch.stack([score(view) for view in views(part.float() / 255)])
        for way, share in enumerate((logits[0], logits[:2].mean(0), (weights[:, None, None] * logits).sum(0))):
            right[way] += (share.argmax(1) == y).sum()
    return dict(zip(("plain", "mirrored", "six_views"), (right / len(labels)).tolist(), strict=True))


def main() -> None:
    """Train, and test each run once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--batches", type=int, help="of an epoch; all by default")
    parser.add_argument("--turns", help="of one run on a CPU: a file; another process that locks it takes turns")
    options = parser.parse_args()
    turns = Turns(options.turns) if options.turns else None
    keep_freed_memory()
    device = default_device()
    data = ImageDataModule(options.dataset, options.root, validation=0, in_channels=3, image_size=32)
    images, labels, _ = data.training_images()
    images, labels = images.to(device), labels.to(device)
    network = run = make_network(normalised(images[:5000]))
    if device == "cpu" and default_winograd([]):
        replace(network)  # `cvcc-zoo fit` does so, too
    if device == "cuda":
        run = torch.compile(network, mode="reduce-overhead", dynamic=False)
        train(network, run, images, labels, options, options.seed)
    data.setup("test")
    test = data.test_dataloader()
    for seed in range(options.seed, options.seed + options.runs):
        seconds = train(network, run, images, labels, options, seed, turns)
        found = accuracies(lambda x: network(normalised(x)), test.images.to(device), test.labels.to(device))
        print(json.dumps({"seconds": seconds, **found}), flush=True)


if __name__ == "__main__":
    main()
