"""Weights of other collections in our networks: theirs are the same networks, with other names for the layers.

    model = load("resnet20-12fca82f.th", model="resnet20", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

Known are those that the repositories chenyaofo/pytorch-cifar-models, akamaster/pytorch_resnet_cifar10,
kuangliu/pytorch-cifar (ResNet-18, ResNeXt-29 2x64d and 32x4d), xternalz/WideResNet-pytorch and prlz77/ResNeXt.pytorch
train. Their weights do not say how the images were normalised, so `mean` and `std` have to be known.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.files.plain import load_plain
from cvcc_zoo.registry import FAMILIES, as_typed, unknown
from cvcc_zoo.weights.fits import check_bounds
from cvcc_zoo.zoo.catalogue import describe
from cvcc_zoo.zoo.creation import create
from cvcc_zoo.zoo.transfer import transfer

WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put in front of every name
RENAMES = {
    "ResNet": {r"\.shortcut\.": ".downsample.", r"^linear\.": "fc."},
    "WideResNet": {r"^bn1\.": "bn.", r"^block(\d)\.layer\.": r"layer\1.", r"\.convShortcut\.": ".downsample."},
    "ResNeXt": {
        r"^conv_1_3x3\.": "conv1.",
        r"^bn_1\.": "bn1.",
        r"^stage_(\d)\.stage_\d_bottleneck_": r"layer\1.",
        r"\.conv_reduce\.": ".conv1.",
        r"\.bn_reduce\.": ".bn1.",
        r"\.conv_conv\.": ".conv2.",
        r"\.bn\.": ".bn2.",
        r"\.conv_expand\.": ".conv3.",
        r"\.bn_expand\.": ".bn3.",
        r"\.shortcut\.shortcut_conv\.": ".downsample.0.",
        r"\.shortcut\.shortcut_bn\.": ".downsample.1.",
        r"\.shortcut\.": ".downsample.",
        r"^(?:classifier|linear)\.": "fc.",
    },
}
"""For each family: how the others name a layer, as a pattern, and what it is called here. Where none fits, alike."""


def load(
    path: str | Path, *, model: str, mean: Sequence[float], std: Sequence[float], **options: Any
) -> ImageClassifier:
    """The model of these weights, in evaluation mode; it takes raw images, as all of ours do.

    Args:
        path: What torch.save wrote: a state_dict, or a dict with one in it.
        model: The name of a residual network here ("resnet20", "wrn28_10"), or a family ("WideResNet").
        mean: What their training subtracted from each channel of images in [0, 1].
        std: What it divided by.
        options: Those of the family ("WideResNet" takes depth and width). Classes and channels are those of the
            weights, and so is the shortcut of a ResNet; with another num_classes the classifier is new, with other
            in_channels the first convolution is adapted.

    The weights do not name their classes: `model.classes = [...]` does. Nothing in the file can run. Raises
    FileNotFoundError or ValueError for a file that is missing, or holds other weights than those of the network.

    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the weights that torch.save wrote")
    tensors = _tensors(load_plain(path, old=True), path)
    family = as_typed(model, FAMILIES) or describe(model)[0]
    if family not in RENAMES:
        raise unknown("family with weights of others", family, RENAMES)
    for pattern, name in RENAMES[family].items():
        tensors = {re.sub(pattern, name, key): tensor for key, tensor in tensors.items()}
    for name in ("conv1.weight", "fc.weight"):
        if name not in tensors or tensors[name].ndim not in (2, 4):
            raise ValueError(f"{path} has no {name} of a {family}, but {', '.join(list(tensors)[:4])}, ...")
    shape: dict[str, Any] = {"num_classes": len(tensors["fc.weight"]), "in_channels": tensors["conv1.weight"].shape[1]}
    check_bounds(shape, str(path))
    if family == "ResNet" and not any(".downsample." in name for name in tensors):
        options = {"shortcut": "A", **options}
    made = create(model, **{"whitening": "standardize", **shape, **options})
    tensors["conv1.weight"] = _as_3x3(tensors["conv1.weight"])
    given = {f"network.{name}": tensor for name, tensor in tensors.items()}
    given |= {f"whitening.{name}": each for name, each in _statistics(mean, std, shape["in_channels"]).items()}
    counters = {name: each for name, each in made.state_dict().items() if name.endswith(".num_batches_tracked")}
    transfer(
        made, counters | given, family, {**made.hparams, **shape}, str(path)
    )  # before torch 0.4.1 norms did not count
    return made.eval()


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The state_dict in what was saved, without what wraps all of its names. Raises ValueError if there is not one."""
    inside = list(content.values()) if isinstance(content, Mapping) else []
    found = [each for each in (content, *inside) if _is_state(each)]
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} state_dicts; save one alone: torch.save(net.state_dict(), ...)")
    tensors: dict[str, Tensor] = dict(found[0])
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _is_state(content: Any) -> bool:
    filled = isinstance(content, Mapping) and len(content) > 0
    return filled and all(isinstance(key, str) and isinstance(each, Tensor) for key, each in content.items())


def _as_3x3(weight: Tensor) -> Tensor:
    """A first convolution (out, in, 3, 3); a 1x1 one, as in kuangliu's ResNeXt, is its middle among zeros."""
    return F.pad(weight, (1, 1, 1, 1)) if weight.shape[2:] == (1, 1) else weight


def _statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> dict[str, Tensor]:
    """They as tensors (channels,). Raises ValueError for what are no statistics of images in [0, 1]."""
    values = {"mean": Tensor(list(mean)), "std": Tensor(list(std))}
    for name, each in values.items():
        if each.shape != (channels,):
            raise ValueError(f"{name} is a number for each of {channels} channels, got {list(each.tolist())}")
        if not (each.min() >= 0 and each.max() <= 1) or (name == "std" and each.min() == 0):
            raise ValueError(
                f"{name} is of images in [0, 1], got {each.tolist()}; divide by 255 where it is of images in 0..255"
            )
    return values
