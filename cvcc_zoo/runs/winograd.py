"""Winograd: training steps on a CPU whose wide 3x3 convolutions use Winograd's algorithm.

`cvcc-zoo fit` and `train-zoo` choose it by themselves in float32 and with up to four threads on a processor with AVX2
and without AVX-512. It changes nothing but rounding: a step equals one without it to about five digits, so two
trainings drift apart as they do on different processors. Validation and test always use torch's convolutions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from cvcc_zoo.data.pixels import is_traced
from cvcc_zoo.internals.lightning import callbacks_of
from cvcc_zoo.internals.torch import in_function_transform
from cvcc_zoo.models.winograd import gain, winograd_conv2d
from cvcc_zoo.runs.compiled import Compile

LEAST = 1.5
"""Convolutions use Winograd's algorithm if one thread is expected to compute them this many times as fast. Two threads
gain less: of 64 channels, 1.4 is expected, and with two threads they were 0.9 to 1.2 times as fast."""
LEAST_PIXELS = 1024
"""A batch with fewer outputs of a channel uses torch's convolution: matrix products of few rows are slow."""
CAPABILITY, MOST_THREADS = "AVX2", 4
"""Training chooses it by itself on processors with these instructions, and up to so many threads. It was measured with
one and two: cnn_fast was 1.6 and 1.4 times as fast, because threads share the memory, which it uses more."""


class Winograd(Callback):
    """Compute the wide 3x3 convolutions of training steps on a CPU by Winograd's algorithm."""

    def __init__(self, enabled: bool = True, required: bool = True) -> None:
        """With `enabled=False`, training uses torch's convolutions, also where it would choose Winograd's by itself.

        If something forbids it, training raises ValueError, or uses torch's convolutions if `required` is False.
        """
        self.enabled = enabled
        self.required = required
        self._replaced: list[_Faster] = []
        self._used = False

    @property
    def used(self) -> bool:
        """Whether any step has used Winograd's algorithm; those of few images, for example, do not."""
        return self._used or any(each.used for each in self._replaced)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise ValueError if something forbids it and it is required."""
        if self.enabled and self.required and (reason := reason_against(trainer, pl_module)) is not None:
            raise ValueError(f"Winograd: {reason}, or leave out Winograd")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the convolutions; names of parameters and checkpoints do not change."""
        if self.enabled and reason_against(trainer, pl_module) is None:
            self._replaced = replace(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore torch's convolutions, and say so if no step used others although that was asked for."""
        if self.required and self._replaced and not self.used:
            rank_zero_info(
                "Winograd: no step used it, because the images are too few or too small, or because the convolutions "
                "are compiled or have a forward pass of their own; leave out Winograd, or raise --data.batch_size"
            )
        self._restore(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore torch's convolutions."""
        self._restore(pl_module)

    def _restore(self, model: LightningModule) -> None:
        self._used, self._replaced = self.used, []
        restore(model)


def default_winograd(chosen: Sequence[Callback]) -> list[Callback]:
    """Return the Winograd that training adds by itself to the chosen callbacks, or nothing."""
    wanted = torch.backends.cpu.get_cpu_capability() == CAPABILITY and torch.get_num_threads() <= MOST_THREADS
    return [Winograd(required=False)] if wanted and not any(isinstance(each, Winograd) for each in chosen) else []


def used_winograd(trainer: Trainer) -> bool:
    """Return whether a training step of this Trainer used Winograd's algorithm in any convolution."""
    return any(isinstance(each, Winograd) and each.used for each in callbacks_of(trainer))


def reason_against(trainer: Trainer, model: LightningModule) -> str | None:
    """Return what rules out Winograd's algorithm, and what to do about it, or None if nothing does."""
    if (device := trainer.strategy.root_device.type) != "cpu":
        return f"it is for a CPU, and this is a {device}; train with --trainer.accelerator=cpu"
    if trainer.precision != "32-true":
        return f"it computes in float32, not in {trainer.precision}; train with --trainer.precision=32-true"
    if any(isinstance(each, Compile) for each in callbacks_of(trainer)):
        return "a compiled network has convolutions of its own; leave out Compile"
    if not convolutions(model):
        return (
            "the model has no 3x3 convolution with stride 1, without groups, that is wide enough to gain (about 70 "
            "channels in and out); choose another model"
        )
    return None


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions that Winograd's algorithm can make faster, if their images are large enough."""
    return [each for each in model.modules() if isinstance(each, nn.Conv2d) and _suits(each)]


class _Faster:
    """The `_conv_forward` of a convolution during training."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        self.convolution = convolution
        self.used = False

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output of the convolution, in training by Winograd's algorithm where it is faster."""
        convolution = self.convolution
        suits = convolution.training and _suits(convolution)  # its stride may have changed since training started
        padding = _padding(convolution) if suits else None
        if padding is None or not _fast(input, weight, padding):
            ordinary: Tensor = nn.Conv2d._conv_forward(convolution, input, weight, bias)
            return ordinary
        self.used = True
        output = winograd_conv2d(input, weight, padding)
        return output if bias is None else output + bias[:, None, None]


def replace(model: nn.Module) -> list[_Faster]:
    """Let the convolutions of a model use Winograd's algorithm in training; return what replaces their code."""
    replaced = [_Faster(each) for each in convolutions(model)]
    for each in replaced:
        vars(each.convolution)["_conv_forward"] = each
    return replaced


def restore(model: nn.Module) -> None:
    """Let the convolutions of a model be torch's again, also those that were changed during training."""
    for each in model.modules():
        if _is_replaced(each):
            del vars(each)["_conv_forward"]


def _is_replaced(module: nn.Module) -> bool:
    return isinstance(vars(module).get("_conv_forward"), _Faster)


def _suits(convolution: nn.Conv2d) -> bool:
    """Return whether this is a plain 3x3 convolution, of this kind and width, whose forward pass nobody changed."""
    if type(convolution)._conv_forward is not nn.Conv2d._conv_forward:
        return False
    if "_conv_forward" in vars(convolution) and not _is_replaced(convolution):
        return False
    form = (convolution.kernel_size, convolution.stride, convolution.dilation, convolution.groups)
    if form != ((3, 3), (1, 1), (1, 1), 1) or convolution.padding_mode != "zeros" or _padding(convolution) is None:
        return False
    return gain(convolution.in_channels, convolution.out_channels, 4, 4) >= LEAST


def _padding(convolution: nn.Conv2d) -> int | None:
    """Return the padding on all four sides, or None if it is another one."""
    if isinstance(convolution.padding, str):
        return {"valid": 0, "same": 1}[convolution.padding]
    top, left = convolution.padding
    return top if top == left and top <= 2 else None


def _fast(input: Tensor, weight: Tensor, padding: int) -> bool:
    if not _single(input) or not _single(weight):
        return False
    if is_traced() or in_function_transform() or torch.is_autocast_enabled("cpu"):
        return False
    if input.ndim != 4 or weight.shape[1:] != (input.shape[1], 3, 3):
        return False
    height, width = (size + 2 * padding - 2 for size in input.shape[2:])
    if min(height, width) < 1 or len(input) * height * width < LEAST_PIXELS:
        return False
    if any(unpack_dual(each).tangent is not None for each in (input, weight)):  # type: ignore[no-untyped-call]
        return False  # forward-mode differentiation
    return gain(weight.shape[1], len(weight), height, width) >= LEAST


def _single(x: Any) -> bool:
    plain = type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided
    return plain and x.dtype == torch.float32 and x.device.type == "cpu"
