"""Build augmentations from names and options: presets, lists, and augmentations inside others."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from cvcc_zoo.data.augment.augmentation import Augmentation, Compose, Mixing, Probability
from cvcc_zoo.data.augment.colour import ColorJitter
from cvcc_zoo.data.augment.erasing import Cutout, GaussianBlur, Pixelate, RandomErasing
from cvcc_zoo.data.augment.geometry import AlternatingFlip, HorizontalFlip, RandomCrop
from cvcc_zoo.data.augment.mixing import CutMix, MixUp
from cvcc_zoo.data.augment.policies import RandAugment, TrivialAugment
from cvcc_zoo.kinds import check_kinds
from cvcc_zoo.registry import Spec, as_spec, as_typed, check_options, import_class, pick

AUGMENTATIONS: dict[str, Callable[..., nn.Module]] = {
    c.__name__: c
    for c in (
        RandomCrop, HorizontalFlip, AlternatingFlip, ColorJitter, GaussianBlur, Pixelate, Cutout, RandomErasing,
        TrivialAugment, RandAugment, MixUp, CutMix, Compose, Probability,
    )
}  # fmt: skip
PRESETS: dict[str, tuple[Spec, ...]] = {
    "none": (),
    "light": ({"name": "RandomCrop", "padding": 2, "mode": "reflect"}, {"name": "HorizontalFlip"}),
    "standard": ({"name": "RandomCrop"}, {"name": "HorizontalFlip"}),
    "strong": (
        {"name": "RandomCrop"},
        {"name": "HorizontalFlip"},
        {"name": "TrivialAugment"},
        {"name": "Cutout", "size": 8},
    ),
}
MIRRORING = ("HorizontalFlip", "AlternatingFlip")


def make_augmentations(chosen: Any, *, mirror: bool = True) -> list[nn.Module]:
    """Build the modules of a preset, an augmentation, or a list of both.

    An augmentation is a name or an import path, `{"name": ..., option: value}` or a module; the options `augmentation`
    of Probability and `augmentations` of Compose hold others. With `mirror=False` (digits) presets omit flips,
    inside others too. Raises ValueError, which suggests the nearest names.
    """
    if isinstance(chosen, str | Mapping | nn.Module):
        chosen = [chosen]
    if not isinstance(chosen, Iterable):
        raise ValueError(f"augmentations are none, light, standard, strong, or a list of augmentations, not {chosen!r}")
    modules: list[nn.Module] = []
    for item in chosen:
        if isinstance(item, str) and (preset := as_typed(item, PRESETS)):
            kept = (spec for spec in PRESETS[preset] if mirror or spec["name"] not in MIRRORING)
            modules += [_make(spec, mirror=mirror) for spec in kept]
        else:
            modules.append(_make(item, mirror=mirror))
    return modules


def _find(name: str) -> Callable[..., nn.Module]:
    if "." not in name:
        known = pick("augmentation", name, [*AUGMENTATIONS, *PRESETS])
        if known in PRESETS:
            raise ValueError(f"{known} is a list of augmentations and takes no options; give only its name")
        return AUGMENTATIONS[known]
    found: type[nn.Module] = import_class("augmentation", name, nn.Module)
    if not issubclass(found, Augmentation | Mixing):
        raise ValueError(f"{name} is not an augmentation: make it a subclass of cvcc_zoo.data.augment.Augmentation")
    return found


def _make(item: Any, *, mirror: bool) -> nn.Module:
    if isinstance(item, Augmentation | Mixing):
        return item
    if not isinstance(item, str | Mapping):
        raise ValueError(f"an augmentation is a name or {{name: ..., option: value}}, not {item!r}")
    options = as_spec("augmentation", item)
    name = options.pop("name")
    build = _find(name)
    check_options(f"augmentation {name}", build, options)
    check_kinds(inspect.signature(build).parameters, options, f"augmentation {name}: ")
    if "augmentation" in options:
        inner = make_augmentations(options["augmentation"], mirror=mirror)
        options["augmentation"] = inner[0] if len(inner) == 1 else Compose(inner)
    if "augmentations" in options:
        options["augmentations"] = make_augmentations(options["augmentations"], mirror=mirror)
    try:
        return build(**options)
    except TypeError as error:
        raise ValueError(f"augmentation {name} does not take {options}: {error}") from error
