"""Parts of torch (2.10 and newer) that are private, because no public name has them."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

# TorchDispatchMode sees every operation of a pass. torch's documentation names it by this private path:
# https://docs.pytorch.org/docs/stable/notes/extending.html#extending-all-torch-api-with-modes

aten = torch.ops.aten
BATCH_NORMS = {aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training}
"""The operations that batch norm becomes, beside `native_batch_norm`; like the next two, it is seen by dispatch."""
CAST = aten._to_copy
"""The operation that `Tensor.to` becomes."""
VIEWS = {aten._unsafe_view, aten._reshape_alias}
"""Operations that `reshape` may become, beside `view`."""

# Operations on lists of tensors, as torch's own optimizers use them: on a GPU they launch few kernels.
foreach_add = torch._foreach_add
foreach_add_ = torch._foreach_add_
foreach_addcdiv_ = torch._foreach_addcdiv_
foreach_addcmul = torch._foreach_addcmul
foreach_addcmul_ = torch._foreach_addcmul_
foreach_copy_ = torch._foreach_copy_
foreach_div = torch._foreach_div
foreach_div_ = torch._foreach_div_
foreach_lerp = torch._foreach_lerp
foreach_lerp_ = torch._foreach_lerp_
foreach_maximum = torch._foreach_maximum
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
foreach_neg = torch._foreach_neg
foreach_pow = torch._foreach_pow
foreach_reciprocal = torch._foreach_reciprocal
foreach_sqrt = torch._foreach_sqrt
foreach_sub_ = torch._foreach_sub_


def has_hooks(module: nn.Module) -> bool:
    """Return whether Python code of others runs in the forward or backward pass of a module or of its parameters."""
    of_module = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_tensor = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(each, name) for each in module.modules() for name in of_module) or any(
        getattr(p, name) for p in module.parameters() for name in of_tensor
    )


def changes_forward(module: nn.Module) -> bool:
    """Return whether a call of a module does not only what `forward` of its class says, as with hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Return whether Python code of others runs before or after each step of an optimizer."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def open_writer(experiment: Any) -> Any:
    """Return the writer of a SummaryWriter's file, opened again if Lightning closed it after an earlier run."""
    return experiment._get_file_writer()


def default_arguments(operation: Any) -> dict[str, Any]:
    """Return the names of an operation's arguments and their default values; inspect.signature takes no operation."""
    return {argument.name: argument.default_value for argument in operation._schema.arguments}


def is_batched(tensor: Tensor) -> bool:
    """Return whether a tensor stands for several: it cannot be written into one that does not.

    It does under torch.func.vmap, and in `torch.autograd.grad(..., is_grads_batched=True)`. torch.compile cannot trace
    the question; there the answer is that it may.
    """
    return torch.compiler.is_compiling() or is_batchedtensor(tensor) or is_legacy_batchedtensor(tensor)


def is_recorded() -> bool:
    """Return whether a mode sees the operations, as one that records or traces them: then no value should be read."""
    return is_in_torch_dispatch_mode()


def in_function_transform() -> bool:
    """Return whether a transform of torch.func (grad, vmap, jvp) is active."""
    return torch._C._are_functorch_transforms_active()


def convolution_backward(
    grad: Tensor, input: Tensor, weight: Tensor, padding: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a convolution with stride 1 for its input and its weight, themselves differentiable."""
    stride = dilation = [1, 1]
    first, second, _ = aten.convolution_backward(
        grad, input, weight, None, stride, [padding, padding], dilation, False, [0, 0], 1, [*wanted, False]
    )
    return first, second


def has_int8() -> bool:
    """Return whether this CPU adds up products of bytes (VNNI). torch 2.10 has no public way to ask."""
    return torch.cpu._is_vnni_supported()


def has_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16. torch 2.10 has no public way to ask."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def int8_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of int8 matrices (N, K) and (K, M) in int32; `torch.mm` returns int8, which overflows."""
    return torch._int_mm(a, b)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which products keep their digits; it costs nothing where there is no autocast."""
    on = device.type != "meta" and torch.is_autocast_enabled(device.type)  # torch raises an error for "meta"
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def under_names(own: Collection[str], tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors under a model's `own` names, from which theirs differ by what torch adds to a wrapped module's.

    `torch.compile` adds "_orig_mod", and DistributedDataParallel "module". Names that are the model's own, or that
    differ by more, are kept.
    """

    def plain(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))

    if all(name in own for name in tensors):
        return tensors
    owned = {plain(name): name for name in own}
    found = {name if name in own else owned.get(plain(name), name): tensor for name, tensor in tensors.items()}
    return found if len(owned) == len(own) and len(found) == len(tensors) else tensors


class KeepsDtype(nn.Module):
    """A module that moves to a device with its model, but not to another dtype.

    `Module.to` is the method of the outermost module; what reaches the modules in it is `_apply` alone.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **options: Any) -> Self:
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, *args, **options)  # type: ignore[no-untyped-call]
        return self
