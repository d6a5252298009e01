"""Where the time of a training step of ResNeXt goes on a CPU.

The forward and backward pass of resnext29_32x4d on 64 random images, by kind of layer: shares of the time by torch's
profiler, and operations per second relative to those of a product of large matrices, which is the limit. Grouped
convolutions are slow, but have only a twentieth of the operations: the 1x1 convolutions take over 60 % of the time, at
about the speed of that product. So even if nothing else took any time, a step would only be 1.6 times as fast (1.4
times on a processor that has AVX2 alone).

Three changes were tried on an AMD EPYC in both precisions, in turns with the original. Two groups as one with twice as
many channels, half of whose weights are zero, were 0.99 to 1.02 times as fast; ReLU in place 1.00 to 1.02 times; and
torch.compile, which fuses norms and ReLU, 0.95 to 0.99 times, after 32 to 47 s of compilation.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import gemm_gflops, training_pass
from benchmarks.report import Found, Row
from benchmarks.sides import Settings
from cvcc_zoo.internals.torch import has_bfloat16
from cvcc_zoo.timing import seconds
from cvcc_zoo.zoo.creation import create

CONVOLUTIONS = {
    "aten::mkldnn_convolution": (0, 1, 1), "aten::_slow_conv2d_forward": (0, 1, 1),
    "aten::convolution_backward": (1, 2, 2), "aten::_slow_conv2d_backward": (1, 2, 0),
}  # fmt: skip
"""The kernels of convolutions: the positions of input and weight among their arguments, and their operations as a
multiple of a forward pass; 0 for the last one, which runs within the one before it."""
NAMES = {
    "aten::native_batch_norm": "norms", "aten::native_batch_norm_backward": "norms",
    "aten::clamp_min": "ReLU and sums", "aten::threshold_backward": "ReLU and sums",
    "aten::add": "ReLU and sums", "aten::add_": "ReLU and sums",
}  # fmt: skip
MODEL, BATCH, SIDE, REPEATS = "resnext29_32x4d", 64, 2048, 5
LARGEST = "1x1"


def precisions() -> dict[str, torch.dtype]:
    """Return the precisions that are measured; without instructions for it, bfloat16 is 20 times slower."""
    found = {"32-true": torch.float32}
    if has_bfloat16():
        return found | {"bf16-mixed": torch.bfloat16}
    print("  bf16-mixed is left out: this processor has no instructions for it", flush=True)
    return found


def kind_of(conv: nn.Conv2d) -> str:
    """Return the kind of a convolution in words."""
    size = "x".join(str(side) for side in conv.kernel_size)
    return f"{size}, {conv.groups} groups of {conv.weight.shape[1]} channels" if conv.groups > 1 else size


def kinds_of(network: nn.Module, images: Tensor) -> dict[Any, tuple[str, int]]:
    """Return kind and operations of a forward pass of each convolution, by the shapes of its input and weight."""
    found: dict[Any, tuple[str, int]] = {}

    def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        count = 2 * output.numel() * module.weight[0].numel()
        found[tuple(inputs[0].shape), tuple(module.weight.shape)] = kind_of(module), count

    hooks = [each.register_forward_hook(see) for each in network.modules() if isinstance(each, nn.Conv2d)]
    network(images)
    for hook in hooks:
        hook.remove()
    return found


def parts(network: nn.Module, images: Tensor, step: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Return seconds and operations of each part of a step."""
    kinds = kinds_of(network, images)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        step()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in recorded.key_averages(group_by_input_shape=True):
        part, operations = NAMES.get(event.key, "the rest"), 0
        if event.key in CONVOLUTIONS:
            images_at, weight_at, times = CONVOLUTIONS[event.key]
            kind, forward = kinds[tuple(event.input_shapes[images_at]), tuple(event.input_shapes[weight_at])]
            part = f"{kind}, {'backward' if event.key.endswith('backward') else 'forward'}"
            operations = times * forward * event.count
        found[part][0] += event.self_cpu_time_total / 1e6
        found[part][1] += operations
    return {part: (took, done) for part, (took, done) in found.items()}


def measured(network: Any, images: Tensor, dtype: torch.dtype) -> tuple[float, dict[str, tuple[float, float]]]:
    """Return the seconds of a step, and those of its parts with their operations."""
    step = training_pass(network, images, half=dtype != torch.float32)
    step()
    return min(seconds(step) for _ in range(REPEATS)), parts(network, images, step)


def measure(settings: Settings) -> Found:
    """Return the speed and the parts of a step in each precision of the processor."""
    chosen = precisions()
    network: Any = create(MODEL).network
    network.to(memory_format=torch.channels_last).train()
    images = torch.randn(2 if settings.small else BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    rows, cells = [], dict[str, list[str]]()
    for precision, dtype in chosen.items():
        limit = 1e9 * gemm_gflops(dtype=dtype, size=64 if settings.small else SIDE)
        took, found = measured(network, images, dtype)
        total = sum(spent for spent, _ in found.values())
        most = sum(spent for part, (spent, _) in found.items() if part.startswith(f"{LARGEST},")) / total
        bound = f"its {LARGEST} convolutions alone, {100 * most:.0f} % of the time: {len(images) / took / most:.1f}"
        rows.append(Row(f"forward and backward pass of {MODEL}, {precision}", "images/s", len(images) / took, bound))
        for part, (spent, done) in sorted(found.items(), key=lambda item: -item[1][0]):
            speed = f"{100 * done / spent / limit:.0f} %" if done else ""
            cells.setdefault(part, []).extend((f"{100 * spent / total:.1f} %", speed))
    columns = [f"{precision}: {what}" for precision in chosen for what in ("share", "relative speed")]
    return Found(rows, [[["part", *columns], *([part, *values] for part, values in cells.items())]])
