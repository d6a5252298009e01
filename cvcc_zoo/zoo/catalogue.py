"""Facts about models: names, options, parameters, operations; looked up, or counted without computing."""

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import complete, shapes
from cvcc_zoo.classifier.network import counted
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, find
from cvcc_zoo.weights.card import list_cards, model_and_tag
from cvcc_zoo.weights.fits import rebuilt

DATA_OPTIONS = ("num_classes", "in_channels", "image_size", "whitening", "patch_whitening")


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Return the names of the models that match a shell pattern ("resnext29*"), sorted by family and size.

    With `pretrained` return the names of published weights, such as resnet20.cifar10, whose name or model matches.
    """
    if pretrained:
        cards = {name: (name, model_and_tag(name)[0]) for name in list_cards()}
        return sorted(name for name in cards if any(fnmatch.fnmatchcase(each, pattern) for each in cards[name]))
    names = [name for name in (*ENTRIES, *ALIASES) if fnmatch.fnmatchcase(name, pattern)]
    return sorted(names, key=lambda name: (describe(name)[0], find(name).parameters, name))


def describe(name: str) -> tuple[str, dict[str, Any]]:
    """Return a named model's family, and the options that shape it or belong to its name.

    ("ResNet", {"depth": 20, "shortcut": "B", ...}); tuples become lists.
    """
    entry = find(name)
    family = entry.family.__name__
    whole = complete(family, entry.options)
    return family, architecture(whole) | {option: whole[option] for option in entry.options}


def architecture(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that shape a network and depend on neither data nor training; tuples become lists."""
    return {
        option: list(value) if isinstance(value, tuple) else value
        for option, value in hparams.items()
        if option == "ridge" or (option not in DATA_OPTIONS and shapes(option, value))
    }


def name_of(family: str, hparams: Mapping[str, Any]) -> str:
    """Return the name of a model with this family and these options, the best one of `names_of`."""
    return names_of(family, hparams)[0]


def names_of(family: str, hparams: Mapping[str, Any]) -> list[str]:
    """Return the names that a model with this family and these options may have, the best one first.

    These are the registered names whose fixed options it has, in the order of how little it differs: a cnn_small with
    another norm may also be a cnn. Without one it is the name that the family gives: its own in lower case, and for
    networks of others theirs.
    """
    wanted, found = architecture(complete(family, hparams)), list[tuple[int, int, str]]()
    for entry in ENTRIES.values():
        if entry.family.__name__ == family:
            own = architecture(complete(family, entry.options))
            changed = {key for key in own | wanted if own.get(key) != wanted.get(key)}
            if not changed & entry.fixed.keys():
                found.append((len(changed - entry.defaults.keys()), len(changed), entry.name))
    if found:
        found.sort(key=lambda each: each[:2])
        return [name for _, different, name in found if different == 0 or found[0][1]]
    given: Callable[[Mapping[str, Any]], str] | None = getattr(FAMILIES.get(family), "model_name", None)
    return [given(hparams) if given else family.lower()]


@dataclass(frozen=True)
class Complexity:
    """The size of a network: its exact number of parameters, and multiply-accumulate operations for one image."""

    parameters: int
    macs: int


def complexity(model: ImageClassifier) -> Complexity:
    """Count parameters, and multiply-accumulate operations of convolutions and matrix products, in evaluation mode."""

    def macs(network: nn.Module, image: Tensor) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(image)
        return int(counter.get_total_flops()) // 2

    found = counted(model.network, (1, model.in_channels, model.image_size, model.image_size), macs)
    return Complexity(sum(p.numel() for p in model.network.parameters()), found)


def operations(family: str, hparams: Mapping[str, Any]) -> float:
    """Return the multiply-accumulate operations of a model for one image; infinity if it cannot be built by these."""
    try:
        with torch.device("meta"):  # without weights
            return complexity(rebuilt(family, architecture(hparams))).macs
    except Exception:  # networks of users may do anything
        return math.inf
