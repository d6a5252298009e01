"""Whether tensors are those of the network that a file says they are: decided by their shapes, before it is built."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cvcc_zoo.data.moments import vectors
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.registry import FAMILIES, unknown

MOST_CLASSES = 10_000  # the confusion matrix of a model has as many rows and columns
LARGEST_IMAGE = 4096  # pixels
MOST_VALUES = 1 << 24  # of one image: 3 x 2,364 x 2,364


def check_family(family: str, path: Path) -> None:
    """Raise ValueError for a family that is not registered; no class is looked up elsewhere."""
    if family not in FAMILIES:
        raise unknown("model family", family, FAMILIES, f"{path} was made with a class that is not imported")


def check_fits(path: Path, family: str, hparams: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Raise ValueError unless the tensors of a file are, by name and shape, those of a family with hyper-parameters.

    The model is built without memory for its numbers, and no further than it has tensors in the file. So what is built
    after this check is about as large as the file, whatever the hyper-parameters say.
    """
    check_family(family, path)
    check_plain(hparams, f"the hyper-parameters in {path}")
    whole = f"{path} does not hold a whole {family}"
    wrong = [name for name, tensor in tensors.items() if not _is_plain(tensor)]
    if wrong:
        raise ValueError(f"{whole}: {', '.join(map(repr, wrong[:4]))} are no plain tensors; get it again")
    check_bounds(hparams, whole)
    try:
        with torch.device("meta"), _at_most(2 * len(tensors)):
            model = FAMILIES[family](**hparams)
    except Exception as error:  # the options may be of any kind
        raise ValueError(f"{whole}: {error}") from error
    own: dict[str, Tensor] = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()} | _whitening(model, tensors)
    wrong = [f"{name!r} is missing" for name in shapes if name not in tensors]
    wrong += [f"{name!r} has no place" for name in tensors if name not in shapes]
    wrong += [
        f"{name!r} is {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    wrong += [
        f"{name!r} is of type {tensors[name].dtype}"
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"{whole} with its hyper-parameters: {'; '.join(wrong[:4])}{more}. Get it again")


def check_bounds(hparams: Mapping[str, Any], what: str) -> None:
    """Raise ValueError, which `what` begins, for more classes or larger images than a file may ask for."""
    for name, most in (("num_classes", MOST_CLASSES), ("image_size", LARGEST_IMAGE), ("in_channels", MOST_VALUES)):
        value = hparams.get(name, 0)
        if not isinstance(value, int) or value > most:
            raise ValueError(f"{what}: {name} is {value!r}, and files may have a number up to {most:,}")
    channels, size = hparams.get("in_channels", 3), hparams.get("image_size", 32)
    if channels * size**2 > MOST_VALUES:
        raise ValueError(
            f"{what}: its images have {channels} x {size} x {size} values, and files may have up to {MOST_VALUES:,}"
        )


def _is_plain(tensor: Any) -> bool:
    plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
    return plain and not tensor.is_complex()


def _whitening(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of the statistics of a decorrelating whitening, which has none before they are known.

    A `pca` keeps as many components as its file says, one at least and all at most.
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


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Stop the building of a network, in this thread, when it has more parameters than that."""
    thread, count = threading.get_ident(), 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > parameters:
            raise ValueError("a network with these hyper-parameters has more tensors")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()
