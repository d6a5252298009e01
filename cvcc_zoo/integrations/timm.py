"""The zoo's residual networks in timm: `import cvcc_zoo.integrations.timm` registers them as cvcc_<name>.

    model = timm.create_model("cvcc_resnet20.cifar10", pretrained=True)  # also num_classes, in_chans, features_only

Models of timm take images that the caller has normalised, so these are the bare networks, and `mean` and `std` of their
config are those of the whitening in the published file. Cards whose whitening is more than a mean and a std (zca, ...)
are skipped with a warning, and so are cards with patch_whitening, because timm would train the convolution that must
stay fixed; `cvcc_zoo.create` takes them all. A name without a tag means the first card of the model. Call `register`
again after cards were added or removed. Files are checked against their cards each time they are loaded.

linear, fcnn and cnn are not registered: they take images of one size only, and the first two have no feature maps.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, get_pretrained_cfg, register_model
from torch import nn

from cvcc_zoo.integrations.residual import FIRST, HEAD, SIZE, ResidualNetwork, check_whole, parts
from cvcc_zoo.registry import ENTRIES, as_spec, find
from cvcc_zoo.weights.card import find_card, list_cards
from cvcc_zoo.zoo.catalogue import describe
from cvcc_zoo.zoo.published import read_published

PREFIX = "cvcc_"
FAMILIES = ("ResNet", "ResNeXt", "WideResNet")
default_cfgs: dict[str, Any] = {}  # timm looks for this name


def config(path: Path) -> dict[str, Any]:
    """Return timm's config of a card. Raises ValueError for one that timm cannot use, and the errors of reading it."""
    published = read_published(path, path.stem.partition(".")[0])
    card, tensors = published.card, published.state
    whitening = as_spec("whitening", card.hparams["whitening"])["name"]
    if whitening not in ("none", "standardize"):
        raise ValueError(
            f"{card.name} whitens its images with {whitening}, but timm can only subtract a mean and divide by a std; "
            f"use cvcc_zoo.create({card.name!r})"
        )
    if card.hparams.get("patch_whitening") is not None:
        raise ValueError(
            f"the first convolution of {card.name} whitens patches and must not be trained, which timm cannot ensure; "
            f"use cvcc_zoo.create({card.name!r})"
        )
    name, size = card.name.partition(".")[0], card.hparams["image_size"]
    return _input(name, card.hparams["in_channels"], size) | {
        "file": str(path),
        "custom_load": True,
        "mean": tuple(tensors["whitening.mean"].tolist()),
        "std": tuple(tensors["whitening.std"].tolist()),
        "num_classes": card.hparams["num_classes"],
        "label_names": tuple(card.classes),
        "license": card.license,
        "description": f"trained on {card.dataset}",
    }


def _input(name: str, channels: int = 3, size: int = SIZE) -> dict[str, Any]:
    smallest = size // parts(name)[-1]["reduction"]
    whole = {"input_size": (channels, size, size), "crop_pct": 1.0, "interpolation": "bilinear", "num_classes": 10}
    return whole | {"pool_size": (smallest, smallest), "first_conv": FIRST, "classifier": HEAD}


def register() -> list[str]:
    """Register the models and all weights that exist now in timm, and return the names of the models there."""
    names = [name for name in ENTRIES if describe(name)[0] in FAMILIES]
    configs: dict[str, Any] = {}
    for full, path in list_cards().items():
        if full.partition(".")[0] in names:
            try:
                configs[f"{PREFIX}{full}"] = config(path)
            except (OSError, ValueError) as error:
                warnings.warn(f"{full} is not in timm: {error}", stacklevel=2)
    have = {full.partition(".")[0] for full in configs}
    configs |= {f"{PREFIX}{name}": _input(name) for name in names if f"{PREFIX}{name}" not in have}
    default_cfgs.clear()
    default_cfgs.update(generate_default_cfgs(configs))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"Overwriting {PREFIX}")
        for name in names:
            globals()[PREFIX + name] = register_model(_entrypoint(name))  # timm puts the names into __all__
    return [PREFIX + name for name in names]


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """Return the function that timm calls to build a model."""

    def build(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> nn.Module:
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else None
        if pretrained and not pretrained_cfg and (default := get_pretrained_cfg(PREFIX + name)):
            tag = default.tag
        if tag:  # read the card again, because the file may have changed since the last `register`
            pretrained_cfg = config(find_card(f"{name}.{tag}")) | {"architecture": PREFIX + name, "tag": tag}
        if options.get("feature_cls", "getter") != "getter":
            raise ValueError(f"{PREFIX}{name} supports feature_cls='getter' only; leave feature_cls out")
        model: nn.Module = build_model_with_cfg(
            partial(ResidualNetwork, name),
            PREFIX + name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            pretrained_filter_fn=check_whole,
            feature_cfg={"out_indices": tuple(range(len(parts(name)))), "feature_cls": "getter"},
            **options,
        )
        return model

    build.__name__ = build.__qualname__ = PREFIX + name
    build.__doc__ = find(name).summary
    return build


register()
