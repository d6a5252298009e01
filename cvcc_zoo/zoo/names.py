"""Resolve a name to a model, a family or trained weights; everything that takes a model uses this module.

resnet20, ResNet-20            a registered model
ResNet                         a model family
resnet20.cifar10               published weights, even if the working folder has a file of this name
hf://owner/name                published weights in a repository of the Hugging Face Hub
pets.json, pets.safetensors    published weights, by the path of their card or of their tensors
runs/x, ./x, best.ckpt         a run folder, or a checkpoint
timm.resnet18                  a network of timm; `timm/resnet18` is the same
my_package.MyNet               a model family, or a network of your own, by its import path
"""

import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.files.own import expanded
from cvcc_zoo.models.timm import PREFIX, timm_name
from cvcc_zoo.models.timm_weights import ENDINGS as OF_TIMM
from cvcc_zoo.models.timm_weights import IN_FOLDER
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, LONGEST_NAME, as_typed, unknown
from cvcc_zoo.weights.card import find_card, list_cards, model_and_tag
from cvcc_zoo.weights.hub import SCHEME, pull

HINT = "`cvcc-zoo list` shows all models, `cvcc-zoo list --pretrained` all weights"
FILES = (".json", ".safetensors", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Source:
    """The meaning of a name."""

    kind: Literal["model", "family", "timm", "card", "checkpoint", "import path"]
    name: str
    """The name of a model, family or published weights, the path of a file, or an import path."""
    path: Path | None = None
    """The card, or the checkpoint or run folder."""
    model: str | None = None
    """The registered model that the weights must be of; None if they may be of any."""

    @property
    def trained(self) -> bool:
        """True if it has weights."""
        return self.path is not None


def resolve(name: str | Path, pretrained: str | Path | bool | None = None) -> Source:
    """Return the meaning of a name as people type it: case, "-", "_" and spaces do not matter in names of models.

    `pretrained` chooses weights of a named model, as in `create`. Raises ValueError, with the nearest names, for an
    unknown name, and as `weights.hub.pull` does. A file is not checked before it is read.
    """
    source = _meaning(name)
    if pretrained is None:
        return source
    if source.trained and pretrained is False:
        raise ValueError(f"{name} has weights; for a model without them name it alone, or leave pretrained out")
    if source.trained and pretrained is not True:
        raise ValueError(f"{name} already names its weights; leave pretrained={str(pretrained)!r} out")
    if source.trained or pretrained is False:
        return source
    if source.kind == "import path":
        raise ValueError(
            f"pretrained={str(pretrained)!r} chooses weights of a model of this package or of timm, and {name} is a "
            "network of your own; leave it out, and load the weights into model.network"
        )
    if source.kind == "family":
        raise ValueError(
            f"weights belong to a named model, not to the family {source.name}; choose one of `cvcc-zoo list "
            "--pretrained`"
        )
    if source.kind == "timm" and (pretrained is True or _is_of_timm(source.name, pretrained)):
        return source  # with weights of timm, which are no weights of ours
    return _chosen(source.name, pretrained)


def _chosen(model: str, pretrained: str | Path | bool) -> Source:
    """Return the weights of a model that `pretrained` chooses; published ones come before a folder of that name."""
    published = list_cards()
    if pretrained is True:
        tags = [tag for known, tag in map(model_and_tag, published) if known == model]
        if "cifar10" not in tags and len(tags) != 1:
            there = f"choose one of {', '.join(tags)}" if tags else "`cvcc-zoo list --pretrained` shows what there is"
            raise ValueError(f"pretrained=True finds no weights of {model} for cifar10; {there}")
        pretrained = "cifar10" if "cifar10" in tags else tags[0]
    text, path = str(pretrained), expanded(str(pretrained))
    if card := as_typed(f"{model}.{text}", published):
        return _card(published[card])
    if path.is_dir() and not _has_checkpoint(path):
        cards = sorted(path.glob(f"{model}.*.json"))
        if len(cards) != 1:
            names = ", ".join(card.name for card in cards) or "none"
            raise ValueError(
                f"{path} must have one card {model}.<data set>.json, but has {names}; give the card's path"
            )
        return _card(cards[0])
    if not (path.is_dir() or re.search(r"[./:\\]", text)):
        return _card(find_card(f"{model}.{text}"))  # raises, with the nearest names
    source = resolve_trained(path if path.is_dir() else text)
    if source.model not in (None, model):
        raise ValueError(f"{text} holds a {source.model}, not a {model}")
    return replace(source, model=model)


def _meaning(name: str | Path) -> Source:
    """Return the meaning of a name by itself."""
    if not isinstance(name, str | Path):
        raise unknown("model", name, _known(), HINT)
    text = str(name)
    if address := re.match(r"(\w{2,}):/+", text):  # C:/ is a drive of Windows
        if address[1].casefold() != "hf":
            raise ValueError(f"{text} is not hf://owner/name; download the card and its file, and give the card's path")
        return _card(pull(SCHEME + text[address.end() :]))
    if re.match(r"timm[./].", text, re.IGNORECASE) and isinstance(name, str):
        cards = list_cards()
        if card := as_typed(text, cards):
            return _card(cards[card])
        return Source("timm", PREFIX + timm_name(text[len(PREFIX) :]))
    if isinstance(name, Path) or _is_path(text):
        return _of_file(expanded(text))
    if not text or len(text) > LONGEST_NAME:
        raise unknown("model", text, _known(), HINT)
    if text in FAMILIES and text not in ENTRIES:
        return Source("family", text)
    typed, dot, tag = text.partition(".")
    known = as_typed(typed, [*ENTRIES, *ALIASES])
    model = ALIASES.get(known, known) if known else None
    if model and not dot:
        return Source("model", model)
    full, cards = f"{model}.{tag}" if model else text, list_cards()
    if card := as_typed(full, cards):
        return _card(cards[card])
    if Path(text).exists():
        return _of_file(Path(text))
    if family := as_typed(text, FAMILIES):
        return Source("family", family)
    if model:
        return _card(find_card(full))  # raises, with the nearest names
    head, dot, last = text.rpartition(".")
    if dot and head and (last[:1].isupper() or _is_importable(head)):
        imported = FAMILIES.get(last)
        registered = imported is not None and imported.__module__ == head
        return Source("family", last) if registered else Source("import path", text)
    if braces := re.fullmatch(r"([^{}]+)\{\s*(\w+)\s*:.*\}", text):
        of = f"{braces[1].strip()!r}, {braces[2]}=..."
        raise ValueError(
            f"{text}: options in braces belong to `cvcc-zoo compare` alone; write --model={braces[1].strip()} "
            f"--model.{braces[2]}=..., or create({of}) in Python"
        )
    raise unknown("model", text, _known(), HINT)


def resolve_trained(name: str | Path) -> Source:
    """Return the meaning of the name of trained weights. Raises ValueError also for a model without weights."""
    source = resolve(name)
    if source.trained:
        return source
    if source.kind == "import path":
        raise unknown("trained model", str(name), _known(), HINT)
    folder = f"; the folder of this name is ./{name}" if Path(name).is_dir() else ""
    own = {source.name, *(model for model, entry in ENTRIES.items() if entry.family.__name__ == source.name)}
    cards = [card for card in list_cards() if model_and_tag(card)[0] in own]
    advice = f"did you mean {' or '.join(cards[:3])}?" if cards else "`cvcc-zoo list --pretrained` shows all weights"
    raise ValueError(f"{name} is a model without weights; {advice}{folder}")


def told_apart(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return names, but in the place of those that coincide what was given: the paths of two runs of one name."""
    return [name if names.count(name) == 1 else asked for name, asked in zip(names, given, strict=True)]


def _is_importable(module: str) -> bool:
    """Return whether there is a module that may have a network of the user; nothing is imported."""
    package = module.partition(".")[0]
    if package in sys.modules:  # such as __main__, which has no spec
        return True
    return package.isidentifier() and importlib.util.find_spec(package) is not None


def _is_of_timm(network: str, pretrained: str | Path | bool) -> bool:
    """Return whether this is the path of a file or folder of timm's weights, not of weights with a card of ours."""
    path = expanded(str(pretrained))
    if path.is_dir():
        named = as_typed(f"{network}.{pretrained}", list_cards())
        return named is None and any((path / each).is_file() for each in IN_FOLDER)
    return path.suffix in OF_TIMM and not path.with_suffix(".json").exists()


def _is_path(text: str) -> bool:
    path = Path(text)
    return len(path.parts) > 1 or text.startswith(("~", "./")) or text in (".", "..") or path.suffix.lower() in FILES


def _of_file(path: Path) -> Source:
    if path.suffix == ".safetensors":
        path = path.with_suffix(".json")
    if path.suffix == ".json":
        return _card(path)
    if path.name and (beside := path.with_name(f"{path.name}.json")).is_file() and not path.exists():
        return _card(beside)
    if path.is_dir() and not _has_checkpoint(path):
        cards = [card for card in path.glob("*.json") if card.with_suffix(".safetensors").exists()]
        if len(cards) == 1:
            return _card(cards[0])
    return Source("checkpoint", str(path), path)


def _has_checkpoint(folder: Path) -> bool:
    """Return whether a folder is that of a run, which may also have a card."""
    return any((folder / name).exists() for name in ("best.ckpt", "last.ckpt"))


def _card(path: Path) -> Source:
    model = model_and_tag(path.stem)[0]
    return Source("card", path.stem, path, model if model in ENTRIES else None)


def _known() -> list[Any]:
    return [*ENTRIES, *ALIASES, *FAMILIES, *list_cards()]
