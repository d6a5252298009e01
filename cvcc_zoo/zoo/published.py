"""Read published weights, and make the card of new ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.arguments import OF_WEIGHTS
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.data.shaping import shaping_of
from cvcc_zoo.registry import FAMILIES, check_known, family_options
from cvcc_zoo.weights.card import Card, read, read_card
from cvcc_zoo.weights.fits import Weights, check_fits, check_hparams
from cvcc_zoo.zoo.catalogue import architecture, complexity, name_of, names_of


@dataclass(frozen=True)
class Published(Weights):
    """Published weights, and their card."""

    card: Card


def read_published(path: Path, model: str | None = None) -> Published:
    """Read a card and its tensors, and check that they fit its family, hyperparameters and classes.

    If `model` is given, it must be a card of that model. Raises FileNotFoundError or ValueError, as `weights.card.read`
    does.
    """
    card, tensors = read(path)
    known = family_options(FAMILIES[card.family]) if card.family in FAMILIES else card.hparams
    check_known(f"option of {card.family} in {path}", known, *card.hparams)
    check_hparams(path, card.family, card.hparams)
    if model is not None and model not in (found := names_of(card.family, card.hparams)):
        raise ValueError(f"{path} is the card of a {found[0]}, not of a {model}")
    for option in OF_WEIGHTS:
        if option not in card.hparams:
            raise ValueError(f"{path} is not a complete card: its hparams have no {option}; get it again")
    blank, state = check_fits(path, card.family, card.hparams, tensors)
    if len(card.classes) != card.hparams["num_classes"]:
        raise ValueError(f"{path} names {len(card.classes)} classes, not {card.hparams['num_classes']}; get it again")
    recipe = card.training.get("recipe")
    more: dict[str, Any] = {
        "calibration": card.measured.get("calibration", {}),
        "class_weights": _chosen_class_weights(card.training),
        "shaping": shaping_of(recipe.get("data") if isinstance(recipe, dict) else None),
    }
    return Published(path, card.family, card.hparams, state, tuple(card.classes), blank, card, **more)


def _chosen_class_weights(training: Mapping[str, Any]) -> Any:
    """Return the class weights in the recipe of a card if they are "balanced" or by name, or else None."""
    found: Any = training.get("recipe")
    for key in ("model", "init_args", "loss", "class_weights"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if found == "balanced" or isinstance(found, Mapping) else None


def make_card(
    model: ImageClassifier,
    tag: str,
    classes: Sequence[str],
    *,
    dataset: str,
    measured: Mapping[str, Any],
    training: Mapping[str, Any],
    license: str,
) -> Card:
    """Return a card for the weights of a trained model; `cvcc_zoo.weights.card.write` writes it and the tensors.

    `tag` is the part of the name after that of the model; `dataset` is the training data in words.
    """
    family, counts = type(model).__name__, complexity(model)
    name = f"{name_of(family, model.hparams)}.{tag}"
    hparams = {key: list(value) if isinstance(value, tuple) else value for key, value in model.hparams.items()}
    made = (dict(measured), dict(training), license)
    return Card(name, dataset, family, hparams, list(classes), counts.parameters, counts.macs, *made)


def knows_its_training(card: Card) -> bool:
    """Return whether a card has the entries by which other runs are compared with its training."""
    training, train = card.training, card.training.get("train_set")
    identified = isinstance(train, dict) and isinstance(train.get("sha256"), str) and "test_set" in card.measured
    made = isinstance(training.get("recipe"), dict) and type(training.get("seed")) is int
    seeds = training.get("test_accuracy_of_seeds") or {}
    numbers = isinstance(seeds, dict) and all(isinstance(each, int | float) for each in seeds.values())
    return identified and made and numbers and "test_accuracy" in card.measured


def check_place(path: Path, card: Card) -> Card | None:
    """Return the card that a new one replaces, or None.

    Raises ValueError if it is that of another network, or of a training on other images or classes.
    """
    if not path.is_file():
        return None
    there = read_card(path)
    cards = (there, card) if knows_its_training(there) else ()  # a card that does not say is replaced
    images = {each.training["train_set"]["sha256"] for each in cards}
    same = (there.classes, there.parameters, _network(there)) == (card.classes, card.parameters, _network(card))
    if len(images) > 1 or not same:
        raise ValueError(
            f"{path} describes weights of another network, or for other images or classes, which would be lost; choose "
            "another --tag=... or --folder=..., or remove it"
        )
    return there


def _network(card: Card) -> tuple[str, dict[str, Any]]:
    """Return the family of a card and the options that shape its network."""
    options = architecture(complete(card.family, card.hparams))
    return card.family, {name: value for name, value in options.items() if name != "ridge"}
