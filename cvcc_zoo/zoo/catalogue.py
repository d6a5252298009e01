"""Facts about models: names, options, parameters, operations; looked up, or counted without computing."""

import copy
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import complete, shapes
from cvcc_zoo.registry import ALIASES, ENTRIES, find
from cvcc_zoo.weights.card import list_cards

DATA_OPTIONS = ("num_classes", "in_channels", "image_size", "whitening", "patch_whitening")


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Return the names of the models that match a shell pattern ("resnext29*"), sorted by family and size.

    With `pretrained` return the names of published weights, such as resnet20.cifar10, whose name or model matches.
    """
    if pretrained:
        found = list_cards()
        return sorted(name for name in found if _matches(name, pattern) or _matches(name.partition(".")[0], pattern))
    names = [name for name in (*ENTRIES, *ALIASES) if fnmatch.fnmatchcase(name, pattern)]
    return sorted(names, key=lambda name: (describe(name)[0], find(name).parameters, name))


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def describe(name: str) -> tuple[str, dict[str, Any]]:
    """Return a named model's family and the options that shape it: ("ResNet", {"depth": 20, "shortcut": "B", ...})."""
    entry = find(name)
    family = entry.family.__name__
    return family, architecture(complete(family, entry.options))


def architecture(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that shape a network and depend on neither data nor training; tuples become lists."""
    return {
        option: list(value) if isinstance(value, tuple) else value
        for option, value in hparams.items()
        if option == "ridge" or (option not in DATA_OPTIONS and shapes(option, value))
    }


def name_of(family: str, hparams: Mapping[str, Any]) -> str:
    """Return the registered name of a model with this family and shape, or else the family's name in lower case."""
    wanted = architecture(complete(family, hparams))
    own = (entry for entry in ENTRIES.values() if entry.family.__name__ == family)
    return next((e.name for e in own if architecture(complete(family, e.options)) == wanted), family.lower())


@dataclass(frozen=True)
class Complexity:
    """The size of a network: its exact number of parameters, and multiply-accumulate operations for one image."""

    parameters: int
    macs: int


def complexity(model: ImageClassifier) -> Complexity:
    """Count parameters, and multiply-accumulate operations of convolutions and linear layers, on the meta device."""
    network = copy.deepcopy(model.network).to("meta")
    image = torch.empty(1, model.in_channels, model.image_size, model.image_size, device="meta")
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return Complexity(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)
