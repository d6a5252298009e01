"""From a name or a checkpoint to a model: `create`, `list_models`, `load`."""

import copy
import fnmatch
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.checkpoint import read_checkpoint
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.compatibility import complete, shapes
from cvcc_zoo.fitting import check_family, check_fits
from cvcc_zoo.plain import check_plain
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, find, unknown
from cvcc_zoo.transfer import transfer
from cvcc_zoo.weights import Card, find_card, list_cards, read

DATA_OPTIONS = ("num_classes", "in_channels", "image_size", "whitening", "patch_whitening")


def create(
    name: str, *, pretrained: str | Path | bool | None = None, new_head: bool = False, **options: Any
) -> ImageClassifier:
    """Build a model by name, with fresh weights: `create("resnext29", num_classes=100)`.

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
    name, _, dataset = name.partition(".")
    if dataset and pretrained not in (None, True):
        raise ValueError(f"{name}.{dataset} says which weights it has; leave pretrained={str(pretrained)!r} out")
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


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern ("resnext29*"), sorted by family and size."""
    names = [name for name in (*ENTRIES, *ALIASES) if fnmatch.fnmatchcase(name, pattern)]
    return sorted(names, key=lambda name: (describe(name)[0], find(name).parameters, name))


def family_options(family: type) -> set[str]:
    """The names of all constructor options of a family, those of ImageClassifier included."""
    names: set[str] = set()
    for base in inspect.getmro(family):
        if issubclass(base, ImageClassifier):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"}
    return names


@cache
def describe(name: str) -> tuple[str, dict[str, Any]]:
    """The family of a named model and the options that shape it: ("ResNet", {"depth": 20, "shortcut": "B"})."""
    with torch.device("meta"):
        model = find(name).build()
    return type(model).__name__, architecture(model.hparams)


def architecture(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that shape a network whatever the data and the training; tuples become lists."""
    return {
        option: list(value) if isinstance(value, tuple) else value
        for option, value in hparams.items()
        if option == "ridge" or (option not in DATA_OPTIONS and shapes(option, value))
    }


def name_of(family: str, hparams: Mapping[str, Any]) -> str:
    """The registered name of a model with this family and shape, else the family's name in lower case."""
    wanted = (family, architecture(complete(family, hparams)))
    return next((name for name in ENTRIES if describe(name) == wanted), family.lower())


@dataclass(frozen=True)
class Complexity:
    """`parameters` are exact; `macs` are multiply-accumulate operations of one image through the network."""

    parameters: int
    macs: int


def complexity(model: ImageClassifier) -> Complexity:
    """Count parameters and multiply-accumulate operations of convolutions and linear layers; computes nothing."""
    network = copy.deepcopy(model.network).to("meta")
    image = torch.empty(1, model.in_channels, model.image_size, model.image_size, device="meta")
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return Complexity(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def load(checkpoint: str | Path) -> ImageClassifier:
    """The trained model in a checkpoint, in a run folder (its best.ckpt, else last.ckpt), or in a card of weights.

    It is in evaluation mode. Only plain data and tensors are read, and only a registered family is built: a file cannot
    run code or import a module, and takes memory in proportion to its size. An import path in it, of an optimizer, is
    followed in a training only if its module is imported already. Raises FileNotFoundError or ValueError for a file
    that is missing or holds no model of ours.
    """
    if Path(checkpoint).suffix == ".json":
        return _with_weights(Path(checkpoint).expanduser(), {})
    content = read_checkpoint(checkpoint)
    model: ImageClassifier = FAMILIES[content.family](**content.hparams)
    model.load_state_dict(content.state)
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
    return built.eval()


def use_weights(model: ImageClassifier, source: str, classes: Sequence[str]) -> bool:
    """Put weights into a model that is to be trained on these classes, and return whether its classifier is new.

    `source` is the name of published weights, the path of a card, a run folder or a checkpoint. The classifier is
    new if the classes are others than those of a card, or as many others as in a checkpoint. Raises as `create` does.
    """
    given = Path(source).expanduser()
    if given.suffix == ".json" or not given.exists():
        card, tensors = read_published(given if given.suffix == ".json" else find_card(source))
        new = [name.lower() for name in card.classes] != [name.lower() for name in classes]
        _take_whitening(model, card.hparams)
        transfer(model, tensors, card.family, card.hparams, card.name, new_head=new)
        return new
    found = read_checkpoint(given)
    _take_whitening(model, found.hparams)
    transfer(model, found.state, found.family, found.hparams, str(found.path))
    return bool(found.hparams["num_classes"] != model.num_classes)


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
    """The card of a trained model's weights, to be written by `cvcc_zoo.weights.write` with its `state_dict()`.

    `tag` is the part of its name after the model's, `dataset` the data set in words.
    """
    family, counts = type(model).__name__, complexity(model)
    name = f"{name_of(family, model.hparams)}.{tag}"
    hparams = {key: list(value) if isinstance(value, tuple) else value for key, value in model.hparams.items()}
    made = (dict(measured), dict(training), license)
    return Card(name, dataset, family, hparams, list(classes), counts.parameters, counts.macs, *made)
