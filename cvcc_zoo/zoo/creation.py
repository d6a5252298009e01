"""From a name or a checkpoint to a model: `create`, `load`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data.classes import matching
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.registry import ENTRIES, FAMILIES, as_typed, find, unknown
from cvcc_zoo.weights.card import Card, find_card, list_cards, read
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.weights.fits import check_family, check_fits
from cvcc_zoo.zoo.catalogue import complexity, describe, family_options, name_of
from cvcc_zoo.zoo.transfer import transfer


def create(
    name: str, *, pretrained: str | Path | bool | None = None, new_head: bool = False, **options: Any
) -> ImageClassifier:
    """Build a model by name, or a family, with fresh weights: `create("resnext29", num_classes=100)`.

    A family has options of its own: `create("ResNet", depth=26)`. Of a model's name case, "-" and "_" do not matter.

    With `pretrained` it has published weights and is in evaluation mode: the data set that they were trained on
    (`create("resnet20", pretrained="cifar10")`, or `create("resnet20.cifar10")`), the path of their card, a folder
    with one card of the model, or True for its weights of cifar10, else for the only ones that there are.

    `options` are those of its family and of ImageClassifier (num_classes, in_channels, image_size, loss, optimizer,
    lr_scheduler, ...), but not those that the name fixes. Pretrained weights can be taken to other classes (the
    classifier is new then; `new_head` makes it new for as many classes), to other input channels (the first
    convolution is adapted) and to other image sizes (networks with global pooling). Everything else must fit.

    Raises ValueError, with the nearest names, for an unknown name or option, for weights that do not fit, and for
    files that are damaged.
    """
    if not isinstance(name, str) or "/" in name:
        raise unknown("model", name, [*ENTRIES, *FAMILIES], "a file with trained weights: cvcc_zoo.load(path)")
    name, _, dataset = name.partition(".")
    if dataset and pretrained not in (None, True):
        raise ValueError(f"{name}.{dataset} says which weights it has; leave pretrained={str(pretrained)!r} out")
    if name in FAMILIES and name not in ENTRIES and not dataset:
        return _of_family(name, pretrained, options, new_head=new_head)
    entry = find(name)
    family, _ = describe(name)
    known = family_options(FAMILIES[family])
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    if dataset or pretrained not in (None, False):
        card = _card_of(entry.name, dataset or pretrained)
        return _with_weights(card, options, model=entry.name, new_head=new_head)
    if new_head:
        raise ValueError("new_head=True replaces the classifier of pretrained weights; give pretrained=... too")
    try:
        model: ImageClassifier = entry.build(**options)
    except TypeError as error:
        if "multiple values" not in str(error):
            raise
        raise ValueError(
            f"the name {name} fixes one of the options {', '.join(options)}; choose another model "
            f"(cvcc_zoo.list_models()), or build the family yourself: cvcc_zoo.{family}(...)"
        ) from error
    return model


def _of_family(
    family: str, pretrained: str | Path | bool | None, options: Mapping[str, Any], *, new_head: bool
) -> ImageClassifier:
    """A fresh model of a family. Raises ValueError for weights, which belong to a model by its name."""
    if pretrained or new_head:
        raise ValueError(f"weights belong to a named model, not to the family {family}; `cvcc-zoo list --pretrained`")
    known = family_options(FAMILIES[family])
    for option in options:
        if option not in known:
            raise unknown(f"option of {family}", option, known)
    model: ImageClassifier = FAMILIES[family](**options)
    return model


def _card_of(model: str, pretrained: str | Path | bool | None) -> Path:
    """The card that `pretrained` means for a model."""
    if pretrained is True:
        tags = [name.partition(".")[2] for name in list_cards() if name.startswith(f"{model}.")]
        if "cifar10" not in tags and len(tags) != 1:
            there = f"choose one of {', '.join(tags)}" if tags else "`cvcc-zoo list --pretrained` shows what there is"
            raise ValueError(f"pretrained=True finds no weights of {model} for cifar10; {there}")
        pretrained = "cifar10" if "cifar10" in tags else tags[0]
    given = Path(str(pretrained)).expanduser()
    if given.suffix == ".json":
        return given
    if not given.is_dir():
        return find_card(f"{model}.{pretrained}")
    cards = sorted(given.glob(f"{model}.*.json"))
    if len(cards) != 1:
        names = ", ".join(card.name for card in cards) or "none"
        raise ValueError(f"{given} should have one card {model}.<data set>.json, and has {names}; give its path")
    return cards[0]


def load(checkpoint: str | Path) -> ImageClassifier:
    """The trained model in a checkpoint, in a run folder (its best.ckpt, else last.ckpt), in a card or by its name.

    It is in evaluation mode. Only plain data and tensors are read, and only a registered family is built: a file cannot
    run code or import a module, and takes memory in proportion to its size. An import path in it, of an optimizer, is
    followed in a training only if its module is imported already. Raises FileNotFoundError or ValueError for a file
    that is missing or holds no model of ours.
    """
    if Path(checkpoint).suffix == ".json":
        return _with_weights(Path(checkpoint).expanduser(), {})
    if not Path(checkpoint).exists() and (name := as_typed(str(checkpoint), list_cards())):
        return _with_weights(find_card(name), {})
    content = read_checkpoint(checkpoint)
    model: ImageClassifier = FAMILIES[content.family](**content.hparams)
    model.load_state_dict(content.state)
    model.classes = content.classes
    return model.eval()


def read_published(path: Path, model: str | None = None) -> tuple[Card, dict[str, Tensor]]:
    """A card and its tensors, which are those of its family with its hyper-parameters, and as many classes.

    It must be the card of `model` if that is given. Raises FileNotFoundError or ValueError, as `weights.read` does.
    """
    card, tensors = read(path)
    check_family(card.family, path)
    known = family_options(FAMILIES[card.family])
    for option in card.hparams:
        if option not in known:
            raise unknown(f"option of {card.family} in {path}", option, known)
    check_plain(card.hparams, f"the hyper-parameters in {path}")
    if model is not None and (there := name_of(card.family, card.hparams)) != model:
        raise ValueError(f"{path} is the card of a {there}, not of a {model}")
    for option in ("num_classes", "in_channels", "image_size", "whitening"):
        if option not in card.hparams:
            raise ValueError(f"{path} is not a whole card: its hparams have no {option}; get it again")
    check_fits(path, card.family, card.hparams, tensors)
    if len(card.classes) != card.hparams["num_classes"]:
        raise ValueError(f"{path} names {len(card.classes)} classes, not {card.hparams['num_classes']}; get it again")
    return card, tensors


def _with_weights(
    path: Path, options: Mapping[str, Any], model: str | None = None, *, new_head: bool = False
) -> ImageClassifier:
    """The model of a card, as it is or with other options; it must be `model` if given."""
    card, tensors = read_published(path, model)
    built: ImageClassifier = FAMILIES[card.family](**{**card.hparams, **options})
    transfer(built, tensors, card.family, card.hparams, str(path), new_head=new_head)
    if not new_head and built.num_classes == len(card.classes):
        built.classes = tuple(card.classes)
    return built.eval()


def use_weights(model: ImageClassifier, source: str, classes: Sequence[str]) -> bool:
    """Put weights into a model that is to be trained on these classes, and return whether its classifier is new.

    `source` is the name of published weights, the path of a card, a run folder or a checkpoint. The classifier is
    new if the weights were trained on other classes, by their names, or by their number where a checkpoint has no
    names; else the model knows its classes in the order of the weights. Raises as `create` does.
    """
    given = Path(source).expanduser()
    if given.suffix == ".json" or not given.exists():
        card, tensors = read_published(given if given.suffix == ".json" else find_card(source))
        what = (tensors, card.family, card.hparams, card.name)
        names: tuple[str, ...] | None = tuple(card.classes)
    else:
        found = read_checkpoint(given)
        what = (found.state, found.family, found.hparams, str(found.path))
        names = found.classes
    hparams = what[2]
    new = matching(names, classes) is None if names else bool(hparams["num_classes"] != model.num_classes)
    _take_whitening(model, hparams)
    transfer(model, *what, new_head=new)
    model.classes = None if new else names
    return new


def _take_whitening(model: ImageClassifier, hparams: Mapping[str, Any]) -> None:
    """That of the weights in place of the default one; another that was asked for stays, and will not fit."""
    if not model.chose_whitening or model.whitening.spec == "standardize":
        model.use_whitening(hparams["whitening"])


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
    """The card of a trained model's weights, to be written by `cvcc_zoo.weights.card.write` with its `state_dict()`.

    `tag` is the part of its name after the model's, `dataset` the data set in words.
    """
    family, counts = type(model).__name__, complexity(model)
    name = f"{name_of(family, model.hparams)}.{tag}"
    hparams = {key: list(value) if isinstance(value, tuple) else value for key, value in model.hparams.items()}
    made = (dict(measured), dict(training), license)
    return Card(name, dataset, family, hparams, list(classes), counts.parameters, counts.macs, *made)
