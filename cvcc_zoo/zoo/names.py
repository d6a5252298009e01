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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cvcc_zoo.models  # noqa: F401  registers every model
from cvcc_zoo.models.timm import PREFIX, timm_name
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, LONGEST_NAME, as_typed, find, unknown
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

    @property
    def trained(self) -> bool:
        """True if it has weights."""
        return self.path is not None


def resolve(name: str | Path) -> Source:
    """Return the meaning of a name as people type it: case, "-", "_" and spaces do not matter in names of models.

    Raises ValueError, with the nearest names, for an unknown name, and as `weights.hub.pull` does. A file is not
    checked before it is read.
    """
    if not isinstance(name, str | Path):
        raise unknown("model", name, _known(), HINT)
    text = str(name)
    if address := re.match(r"(\w+):/+", text):
        if address[1].casefold() != "hf":
            raise ValueError(f"{text} is not hf://owner/name; download the card and its file, and give the card's path")
        card = pull(SCHEME + text[address.end() :])
        return Source("card", card.stem, card)
    if re.match(r"timm[./].", text, re.IGNORECASE) and isinstance(name, str):
        if card_name := as_typed(text, list_cards()):
            return Source("card", card_name, find_card(card_name))
        return Source("timm", PREFIX + timm_name(text[len(PREFIX) :]))
    if isinstance(name, Path) or _is_path(text):
        return _of_file(_expanded(text))
    if not text or len(text) > LONGEST_NAME:
        raise unknown("model", text, _known(), HINT)
    if text in FAMILIES and text not in ENTRIES:
        return Source("family", text)
    if model := as_typed(text, [*ENTRIES, *ALIASES]):
        return Source("model", find(model).name)
    if card_name := as_typed(_without_alias(text), list_cards()):
        return Source("card", card_name, find_card(card_name))
    if Path(text).exists():
        return _of_file(Path(text))
    if family := as_typed(text, FAMILIES):
        return Source("family", family)
    head, dot, last = text.rpartition(".")
    if as_typed(text.partition(".")[0], [*ENTRIES, *ALIASES]):
        return Source("card", text, find_card(_without_alias(text)))  # raises, with the nearest names
    if dot and head and (last[:1].isupper() or _is_importable(head)):
        imported = FAMILIES.get(last)
        known = imported is not None and imported.__module__ == head
        return Source("family", last) if known else Source("import path", text)
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


def _is_importable(module: str) -> bool:
    """Return whether there is a module that may have a network of the user; nothing is imported."""
    package = module.partition(".")[0]
    return package.isidentifier() and importlib.util.find_spec(package) is not None


def _is_path(text: str) -> bool:
    path = Path(text)
    return len(path.parts) > 1 or text.startswith(("~", "./")) or text in (".", "..") or path.suffix.lower() in FILES


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{text} is in the home folder of a user who does not exist here; give the whole path"
        ) from error


def _of_file(path: Path) -> Source:
    if path.suffix == ".safetensors":
        path = path.with_suffix(".json")
    if path.suffix == ".json":
        return Source("card", path.stem, path)
    if (beside := path.with_name(f"{path.name}.json")).is_file() and not path.exists():
        return Source("card", path.name, beside)
    if path.is_dir() and not any((path / name).exists() for name in ("best.ckpt", "last.ckpt")):
        cards = [card for card in path.glob("*.json") if card.with_suffix(".safetensors").exists()]
        if len(cards) == 1:
            return Source("card", cards[0].stem, cards[0])
    return Source("checkpoint", str(path), path)


def _without_alias(name: str) -> str:
    """Return `resnext29_32x4d.cifar10` for `resnext29.cifar10`."""
    model, dot, data = name.partition(".")
    known = as_typed(model, [*ENTRIES, *ALIASES])
    return f"{find(known).name}{dot}{data}" if dot and known else name


def _known() -> list[Any]:
    return [*ENTRIES, *ALIASES, *FAMILIES, *list_cards()]
