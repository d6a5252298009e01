"""Trained weights and their model: tensors are compared with its shapes before the model takes memory."""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cvcc_zoo.data.identity import NO_PIXELS, Pixels
from cvcc_zoo.data.moments import vectors
from cvcc_zoo.data.shaping import shaping_of
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.internals.torch import under_names
from cvcc_zoo.kinds import check_bounds
from cvcc_zoo.registry import FAMILIES, NotImportedError, check_known


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, which fit its family and hyperparameters."""

    path: Path
    family: str
    hparams: dict[str, Any]
    state: Mapping[str, Any]
    """Tensors by name: a state_dict."""
    classes: tuple[str, ...] | None
    """Names in the order of the logits; None where the file does not say."""
    blank: Any = field(repr=False, compare=False)
    """The model without its weights, as `check_fits` returns it."""
    calibration: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """`temperature`, by which the logits are divided, and `fitted_on`, in words; empty without a calibration."""
    class_weights: Any = field(default=None, kw_only=True)
    """Those of the loss as they were chosen, such as "balanced", before training made them numbers; None if unknown."""
    shaping: dict[str, str] = field(default_factory=lambda: shaping_of(None), kw_only=True)
    """`resize` and `background` of the ImageDataModule, by which image files became pixels in training."""
    seen_images: Pixels = field(default_factory=lambda: NO_PIXELS, kw_only=True, repr=False, compare=False)
    """Hashes of a user's own images that they were trained on or chosen by; empty where the file does not say."""

    @cached_property
    def model(self) -> Any:
        """The model with these weights, in evaluation mode; it is made once.

        A model of ours is the one that was checked, with the tensors put in. One with a class or network of others,
        which may tie weights, or with tensors outside its state_dict (HOG has some) is built anew.
        """
        if is_ours(self.family) and not any(tensor.is_meta for tensor in _other_tensors(self.blank, self.state)):
            model, own = self.blank, self.blank.state_dict()
            doubles = all(tensor.dtype == torch.float64 for tensor in self.state.values() if tensor.is_floating_point())
            tensors = {
                name: tensor.to(tensor.dtype if doubles else own[name].dtype, copy=True)
                for name, tensor in self.state.items()
            }
            model.load_state_dict(tensors, assign=True)
            model.to(torch.get_default_device())  # Lightning's `device` is "meta" until now
        else:
            model = rebuilt(self.family, self.hparams)
            model.load_state_dict(self.state)
        model.take_class_weights(self.hparams)
        model.classes, model.shaping, model.seen_images = self.classes, self.shaping, self.seen_images
        model.chosen_class_weights = self.class_weights
        model.temperature = self.calibration.get("temperature", 1.0)
        return model.eval()


def is_ours(family: str) -> bool:
    """Return whether family and network belong to this package; those of others may do anything when they are built."""
    found = FAMILIES[family]
    return found.__module__.startswith("cvcc_zoo.") and not getattr(found, "network_of_others", False)


def rebuilt(family: str, hparams: Mapping[str, Any]) -> Any:
    """Return a new model of a family with these hyperparameters. Raises ValueError if its class fixes one of them."""
    found: Any = FAMILIES[family]
    return found.rebuilt(hparams)


def _other_tensors(model: nn.Module, state: Collection[str]) -> Iterator[Tensor]:
    """Yield the buffers and attributes that are not in a state_dict."""
    yield from (buffer for name, buffer in model.named_buffers() if name not in state)
    yield from (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))


def check_hparams(path: Path, family: str, hparams: Mapping[str, Any]) -> None:
    """Raise ValueError unless a family is registered, as classes are looked up nowhere else, and its options plain."""
    own = f"if {path} has a class of your own: `cvcc-zoo --import=ITS_MODULE ...`; in Python: `import ITS_MODULE` first"
    check_known("model family", FAMILIES, family, hint=own)
    check_plain(hparams, f"the hyperparameters in {path}")


def check_fits(
    path: Path, family: str, hparams: Mapping[str, Any], tensors: Mapping[str, Any], advice: str = "Get it again"
) -> tuple[Any, Mapping[str, Tensor]]:
    """Return the model of a family, and the tensors of a file under its names, if they fit by name and shape.

    `check_hparams` comes before.

    The model is on the meta device, and building stops once it has far more parameters than the file has tensors, so
    memory is in proportion to the size of the file, whatever the hyperparameters say. Only a class or network of others
    that cannot be built there, because it reads values of tensors, is built with memory. Raises ValueError, which says
    what differs and ends with the `advice`, if they do not fit, and NotImportedError for a network of a module that is
    not imported.
    """
    incomplete = f"{path} is not a complete {family}"
    wrong = [name for name, tensor in tensors.items() if not _is_plain(tensor)]
    if wrong:
        raise ValueError(f"{incomplete}: {', '.join(map(repr, wrong[:4]))} are not plain tensors; get it again")
    check_bounds(hparams, incomplete)
    try:
        model = _built(family, hparams, 2 * len(tensors))
    except NotImportedError:
        raise
    except Exception as error:  # options from a file can cause any error
        raise ValueError(f"{incomplete}: {error}") from error
    own: dict[str, Tensor] = model.state_dict()
    tensors = under_names(own, tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()} | _whitening(model, tensors)
    wrong = mismatches(tensors, shapes)
    wrong += [
        f"{name!r} is of type {tensors[name].dtype}"
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ]
    if wrong:
        raise ValueError(f"{incomplete} with its hyperparameters: {in_short(wrong)}. {advice}")
    return model, tensors


def mismatches(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], fresh: Collection[str] = ()
) -> list[str]:
    """Return messages about tensors that differ from a model's by name or shape, except those named in `fresh`."""
    wrong = [f"{name!r} is missing" for name in shapes if name not in tensors and name not in fresh]
    wrong += [f"{name!r} is not in the model" for name in tensors if name not in shapes]
    return wrong + [
        f"{name!r} is {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in tensors and name not in fresh and tensors[name].shape != shape
    ]


def in_short(wrong: list[str]) -> str:
    """Join the first four messages, and say how many more there are."""
    return "; ".join(wrong[:4]) + (f", and {len(wrong) - 4} more" if len(wrong) > 4 else "")


def _is_plain(tensor: Any) -> bool:
    plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
    return plain and not tensor.is_complex()


def _whitening(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the statistics of a decorrelating whitening, which are empty in an unfitted model.

    The number of components of a `pca` is that in the file, limited to at least one and at most all.
    """
    whitening, size = model.whitening, model.image_size
    given = [tensors[name] for name in tensors if name.startswith("whitening.")]
    if not whitening.decorrelates or not any(tensor.numel() for tensor in given):
        return {}
    groups, _, values = vectors(torch.empty(1, model.in_channels, size, size, device="meta"), whitening.scope).shape
    matrix = tensors.get("whitening.matrix")
    kept = matrix.shape[1] if matrix is not None and matrix.ndim == 3 else values
    kept = min(max(kept, 1), values)
    shapes = {"mean": (groups, values), "matrix": (groups, kept, values), "spectrum": (groups, values)}
    return {f"whitening.{name}": shape for name, shape in shapes.items()}


def _built(family: str, hparams: Mapping[str, Any], most: int) -> Any:
    """Build a model with at most that many parameters, on the meta device if its class can be built there."""
    with _at_most(most):
        try:
            with torch.device("meta"):
                return rebuilt(family, hparams)
        except (RuntimeError, TypeError):  # which torch raises where values are read
            if is_ours(family):
                raise
    with _at_most(most):
        return rebuilt(family, hparams)


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Raise ValueError when a network that this thread builds gets more parameters than that."""
    thread, count = threading.get_ident(), 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > parameters:
            raise ValueError("a network with these hyperparameters has more tensors")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()
