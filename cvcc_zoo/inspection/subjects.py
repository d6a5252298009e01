"""Networks for `describe` and `compare`, found by any kind of name, with options.

resnet20                                      a model of this package, freshly initialised
'ResNeXt{cardinality: 2, base_width: 40}'     a family or a model with options, as YAML
resnet20.cifar10, runs/resnet20, best.ckpt    published weights, a run folder, a checkpoint
timm.resnet50                                 a network of timm, freshly initialised, at its own image size
my_nets.Small                                 a network or a family of your own
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from jsonargparse import get_loader
from torch import nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.models.timm import PREFIX as TIMM
from cvcc_zoo.models.timm import own_size
from cvcc_zoo.weights.card import Card, list_cards, model_and_tag, read_card
from cvcc_zoo.zoo.catalogue import architecture, describe, name_of
from cvcc_zoo.zoo.creation import fresh
from cvcc_zoo.zoo.names import resolve, told_apart
from cvcc_zoo.zoo.trained import Trained, find_trained

NAMES = (
    "Names of models and families, with options as 'ResNeXt{cardinality: 2}'; of published weights, run folders and "
    "checkpoints; of networks of timm as timm.resnet50, and of your own."
)
PREFIX = "--model."


@dataclass(frozen=True)
class Subject:
    """A network, with its name, image shape and model."""

    name: str
    network: nn.Module
    shape: tuple[int, int, int]
    """Shape of an image, (C, H, W)."""
    model: ImageClassifier
    """The model that the network belongs to."""
    trained: Trained | None = None
    """The trained model; None for a fresh one."""

    def cards(self) -> list[Card]:
        """Return the card of these published weights, or those of all published weights of a fresh network's shape."""
        if self.trained is not None:
            return [self.trained.card] if self.trained.card else []
        family, hparams = type(self.model).__name__, self.model.hparams
        mine = name_of(family, hparams)
        cards = [read_card(path) for name, path in list_cards().items() if model_and_tag(name)[0] == mine]
        wanted = architecture(complete(family, hparams))
        return [card for card in cards if architecture(complete(card.family, card.hparams)) == wanted]


def split_options(args: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split `--model.init=lsuv` and the like, by name, from other arguments. Raises ValueError for one without "="."""
    options, others = {}, []
    for word in args:
        name, equals, value = word.removeprefix(PREFIX).partition("=")
        if not word.startswith(PREFIX):
            others.append(word)
        elif not equals:
            raise ValueError(f"{word} has no value; write {word}=VALUE")
        else:
            options[re.sub(r"^(init_args|network_options)\.", "", name)] = _value(value)
    return options, others


def _value(text: str) -> Any:
    try:
        return get_loader("yaml")(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not valid YAML; quote it") from error


def find_subjects(names: Sequence[str], options: Mapping[str, Any], seed: int = 0) -> list[Subject]:
    """Return the networks of these names; `options` apply to all of them, and each is initialised from the seed.

    Runs of the same name in two folders are named as they are given. Raises ValueError for unknown names and options,
    for options of trained weights, which are fixed, and for a name that is given twice.
    """
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice; name it once")
    subjects = []
    for name in names:
        torch.manual_seed(seed)
        subjects.append(find_subject(name, options))
    apart = told_apart([subject.name for subject in subjects], names)
    return [replace(subject, name=name) for subject, name in zip(subjects, apart, strict=True)]


def find_subject(given: str, options: Mapping[str, Any]) -> Subject:
    """Return the network of a name, with these options and those in its braces."""
    name, more = parse_name(given)
    options = {**options, **more}
    source = resolve(name)
    if not source.trained:
        fixed: Mapping[str, Any] = {}
        if source.kind == "timm":
            fixed = own_size(source.name.removeprefix(TIMM))
        elif source.kind == "model":  # here options that belong to the name can be changed: resnet20{depth: 26}
            family, fixed = describe(source.name)
            source = resolve(family)
        model = fresh(source, {**fixed, **options})
        return Subject(given, model.network, shape_of(model), model)
    if options:
        raise ValueError(
            f"the options of {name} are fixed by its training; leave {', '.join(options)} out, or name a fresh model"
        )
    found = find_trained(name)
    model = found.model
    return Subject(found.name, model.network, shape_of(model), model, found)


def parse_name(given: str) -> tuple[str, dict[str, Any]]:
    """Return `ResNeXt{cardinality: 2}` as ("ResNeXt", {"cardinality": 2}). Raises ValueError for any other form."""
    found = re.fullmatch(r"([^{}]+)(\{.*\})?", given)
    try:
        options = get_loader("yaml")(found[2] or "{}") if found else None
    except yaml.YAMLError:
        options = None
    if found is None or not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ValueError(
            f"{given!r} is not a name with options; write it like 'ResNeXt{{cardinality: 2, base_width: 40}}'"
        )
    return found[1].strip(), options


def shape_of(model: ImageClassifier) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of the images that a model was built for."""
    return model.in_channels, model.image_size, model.image_size
