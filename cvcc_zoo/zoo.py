"""From a name or a checkpoint to a model: `create`, `list_models`, `load`."""

import copy
import fnmatch
import inspect
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.compatibility import TRAINING_OPTIONS
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, find, unknown
from cvcc_zoo.weights import Card, find_card, read

DATA_OPTIONS = ("num_classes", "in_channels", "image_size", "whitening", "patch_whitening")


def create(name: str, *, pretrained: str | Path | None = None, **options: Any) -> ImageClassifier:
    """Build a model by name, with fresh weights: `create("resnext29", num_classes=100)`.

    With `pretrained` it has published weights and is in evaluation mode: the data set that they were trained on
    (`create("resnet20", pretrained="cifar10")`, or `create("resnet20.cifar10")`), or the path of their card.

    `options` are those of its family and of ImageClassifier (num_classes, in_channels, image_size, loss, optimizer,
    lr_scheduler, ...), but not those that the name fixes. Raises ValueError, with the nearest names, for an unknown
    name or option, for weights that do not fit, and for files that are damaged.
    """
    name, _, dataset = name.partition(".")
    if dataset and pretrained is not None:
        raise ValueError(f"{name}.{dataset} says which weights it has; leave pretrained={str(pretrained)!r} out")
    entry = find(name)
    family, _ = describe(name)
    known = family_options(FAMILIES[family])
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    if dataset or pretrained is not None:
        given = Path(pretrained or "").expanduser()
        card = given if given.suffix == ".json" else find_card(f"{entry.name}.{pretrained or dataset}")
        return _with_weights(card, options, model=entry.name)
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
        if option not in (*TRAINING_OPTIONS, *DATA_OPTIONS)
    }


def name_of(family: str, hparams: Mapping[str, Any]) -> str:
    """The registered name of a model with this family and shape, else the family's name in lower case."""
    wanted = (family, architecture(hparams))
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

    It is in evaluation mode. Only plain data and tensors are read, and only a registered family is built: a checkpoint
    cannot run code. Raises FileNotFoundError or ValueError for a file that is missing or holds no model of ours.
    """
    if Path(checkpoint).suffix == ".json":
        return _with_weights(Path(checkpoint).expanduser(), {})
    content = read_checkpoint(checkpoint)
    try:
        model: ImageClassifier = FAMILIES[content.family](**content.hparams)
        model.load_state_dict(content.state)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{content.path} does not hold a whole {content.family}: {error}") from error
    return model.eval()


def _with_weights(path: Path, options: Mapping[str, Any], model: str | None = None) -> ImageClassifier:
    """The model of a card, as it is or with options that its weights do not depend on; it must be `model` if given."""
    card, tensors = read(path)
    if card.family not in FAMILIES:
        raise unknown("model family", card.family, FAMILIES, f"{path} was made with a class that is not imported")
    known = family_options(FAMILIES[card.family])
    for option in card.hparams:
        if option not in known:
            raise unknown(f"option of {card.family} in {path}", option, known)
    if model is not None and (there := name_of(card.family, card.hparams)) != model:
        raise ValueError(f"{path} is the card of a {there}, not of a {model}")
    built: ImageClassifier = FAMILIES[card.family](**{**card.hparams, **options})
    built.check_same(card.family, card.hparams)
    try:
        built.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold a whole {card.family}: {error}") from error
    return built.eval()


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


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds of a model: a registered family, its hyper-parameters and its weights."""

    path: Path
    family: str
    hparams: dict[str, Any]
    state: dict[str, Any]


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Read a checkpoint file, or that of a run folder; raises as `load` does."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        found = [path / name for name in ("best.ckpt", "last.ckpt") if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"the folder {path} has no best.ckpt or last.ckpt; is it a run folder?")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; a run writes runs/<model>-<dataset>/best.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint of plain data: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or "cvcc_zoo" not in content:
        raise ValueError(f"{path} is not a checkpoint of this package: it does not say which model family it holds")
    family = str(content["cvcc_zoo"]["family"])
    if family not in FAMILIES:
        raise unknown("model family", family, FAMILIES, f"{path} was made with a class that is not imported")
    return Checkpoint(path, family, content["hyper_parameters"], content["state_dict"])
