"""Weights of other collections, loaded into our networks: the same networks with other names for the layers.

    model = load("resnet20-12fca82f.th", model="resnet20", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

Supported are the weights of chenyaofo/pytorch-cifar-models, akamaster/pytorch_resnet_cifar10, kuangliu/pytorch-cifar
(ResNet-18, ResNeXt-29 2x64d and 32x4d), xternalz/WideResNet-pytorch and prlz77/ResNeXt.pytorch. The files do not say
how the images were normalised, so you have to give `mean` and `std`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.files.own import expanded
from cvcc_zoo.kinds import check_bounds
from cvcc_zoo.models.timm_weights import read_tensors
from cvcc_zoo.registry import FAMILIES, as_typed, check_known
from cvcc_zoo.weights.fits import Weights
from cvcc_zoo.zoo.catalogue import describe
from cvcc_zoo.zoo.creation import create
from cvcc_zoo.zoo.transfer import transfer

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
"""For each family, patterns of the other collections' layer names and their replacements; other names are equal."""


def load(
    path: str | Path, *, model: str, mean: Sequence[float], std: Sequence[float], **options: Any
) -> ImageClassifier:
    """Return the model of these weights in evaluation mode; like all our models, it takes raw images.

    Args:
        path: A file of torch.save or of safetensors: a state_dict, or a dict that contains one.
        model: The name of one of our residual networks ("resnet20", "wrn28_10"), or a family ("WideResNet").
        mean: The mean that was subtracted from each channel of images in [0, 1] when the weights were trained.
        std: The standard deviation by which each channel was divided.
        options: Options of the family ("WideResNet" takes depth and width). The numbers of classes and channels and
            the shortcut of a ResNet are found in the weights; with another num_classes the classifier is new, with
            other in_channels the first convolution is adapted.

    The weights do not name their classes; set them with `model.classes = [...]`. No code in the file can run. Raises
    FileNotFoundError for a missing file, and ValueError for weights that do not fit the network.

    """
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a file of weights from torch.save or of safetensors")
    tensors = read_tensors(path)
    if any(name.startswith("whitening.") for name in tensors):
        raise ValueError(
            f"{path} holds a model of this package, which normalises its images itself; read a checkpoint with "
            "cvcc_zoo.load, and give a state_dict to model.load_state_dict"
        )
    family = as_typed(model, FAMILIES) or describe(model)[0]
    check_known("family with weights in other collections", RENAMES, family)
    for pattern, name in RENAMES[family].items():
        tensors = {re.sub(pattern, name, key): tensor for key, tensor in tensors.items()}
    for name in ("conv1.weight", "fc.weight"):
        if name not in tensors or tensors[name].ndim not in (2, 4):
            raise ValueError(
                f"{path} has no {name} of a {family}, but {', '.join(list(tensors)[:4])}, ...; choose another model"
            )
    shape: dict[str, Any] = {"num_classes": len(tensors["fc.weight"]), "in_channels": tensors["conv1.weight"].shape[1]}
    check_bounds(shape, str(path))
    if family == "ResNet" and not any(".downsample." in name for name in tensors):
        options = {"shortcut": "A", **options}
    made = create(model, **{"whitening": "standardize", **shape, **options})
    tensors["conv1.weight"] = _as_3x3(tensors["conv1.weight"])
    given = {f"network.{name}": tensor for name, tensor in tensors.items()}
    given |= {f"whitening.{name}": each for name, each in _statistics(mean, std, shape["in_channels"]).items()}
    # norms of torch before 0.4.1 have no counters
    counters = {name: each for name, each in made.state_dict().items() if name.endswith(".num_batches_tracked")}
    hparams = {**made.hparams, **shape}
    transfer(made, Weights(path, family, hparams, counters | given, None, made))
    return made.eval()


def _as_3x3(weight: Tensor) -> Tensor:
    """Return a first convolution as (out, in, 3, 3); a 1x1 one, as in kuangliu's ResNeXt, is padded with zeros."""
    return F.pad(weight, (1, 1, 1, 1)) if weight.shape[2:] == (1, 1) else weight


def _statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> dict[str, Tensor]:
    """Return mean and std as tensors (channels,). Raises ValueError unless they are statistics of images in [0, 1]."""
    values = {"mean": Tensor(list(mean)), "std": Tensor(list(std))}
    for name, each in values.items():
        if each.shape != (channels,):
            raise ValueError(f"{name} needs one number for each of {channels} channels, got {list(each.tolist())}")
        if not (each.min() >= 0 and each.max() <= 1) or (name == "std" and each.min() == 0):
            raise ValueError(
                f"{name} must be that of images in [0, 1], got {each.tolist()}; divide it by 255 if it is of 0..255"
            )
    return values
