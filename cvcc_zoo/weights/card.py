"""Published weights: a file of tensors and its card, which are checked against each other whenever they are read.

    resnet20.cifar10.safetensors   only tensors: no code that could run
    resnet20.cifar10.json          model, training, measurements, and the sha256 of the file of tensors

They are in the package (`published/`), or in `$CVCC_ZOO_HOME`, by default the user's cache folder. If a file of tensors
is not beside its card, it is downloaded into the latter folder from the card's `url`, or beside the card if that
folder has a card of the same name. This module builds no models.
"""

import dataclasses
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from cvcc_zoo.data.images import Split
from cvcc_zoo.files.download import digest, fetch
from cvcc_zoo.files.own import home, json_text, one_at_a_time, whole_file, write_whole
from cvcc_zoo.kinds import is_number
from cvcc_zoo.registry import pick

LARGEST_CARD = 32 << 20  # bytes; the confusion matrix of 1,000 classes takes 5 MB
HIGHEST_TEMPERATURE = 2**53
PUBLISHED = Path(__file__).parents[1] / "published"


@dataclass(frozen=True)
class Card:
    """A description of published weights, as plain data."""

    name: str
    """<model>.<dataset>, such as resnet20.cifar10: the name of the files without their endings."""
    dataset: str
    """The training data, in words; CIFAR-10 only for the original images."""
    family: str
    """Class name of the model's family, such as ResNet."""
    hparams: dict[str, Any]
    """Options that the model is built with."""
    classes: list[str]
    """Names of the classes, in the order of the logits."""
    parameters: int
    macs: int
    measured: dict[str, Any]
    """Measurements of the published file, such as test_accuracy, a fraction in [0, 1]."""
    training: dict[str, Any]
    """How the weights were made: recipe, data, seeds, time, hardware, versions."""
    license: str
    sha256: str = ""
    size: int = 0
    """Bytes of the file of tensors."""
    url: str = ""
    """Where to download the file of tensors if it is not beside the card: https://... or hf://owner/name."""

    @property
    def tested_on(self) -> str:
        """The data set of the test images, in words: its own name if the package knows the images."""
        return self.measured.get("test_set", {}).get("name") or self.dataset

    @property
    def images(self) -> dict[Split, Any]:
        """What it says of the images of training and of those held out, usually their identities as plain data."""
        return {"train": self.training.get("train_set"), "val": self.training.get("val_set")}


def model_and_tag(name: str) -> tuple[str, str]:
    """Split the name of weights into those of the model and of the data: ("timm.resnet18", "cifar10")."""
    families = "timm."  # names of its models have a dot of their own
    start = len(families) if name.startswith(families) else 0
    model, _, tag = name[start:].partition(".")
    return name[:start] + model, tag


def _places() -> list[Path]:
    """Return the folders to search for published weights, in this order."""
    try:
        return [PUBLISHED, home("CVCC_ZOO_HOME")]
    except ValueError:  # a user without a home folder has the weights of the package
        return [PUBLISHED]


def list_cards() -> dict[str, Path]:
    """Return the paths of all cards by name; the package's own take precedence."""
    found: dict[str, Path] = {}
    for folder in _places():
        for path in sorted(folder.glob("*.json")):
            found.setdefault(path.stem, path)
    return found


def find_card(name: str) -> Path:
    """Return the path of a card. Raises ValueError, with the nearest names, if there is none."""
    cards = list_cards()
    where = (*_places()[1:], "a folder, and name it: export CVCC_ZOO_HOME=...")[0]
    return cards[pick("published weight", name, cards, f"put {name}.json and {name}.safetensors into {where}")]


def read_card(path: Path) -> Card:
    """Read a card. Raises FileNotFoundError, or ValueError unless it is a complete card."""
    if not path.is_file():
        ways = "cvcc_zoo.integrations.peers.load and create('timm.NAME', pretrained=...) read weights without a card"
        raise FileNotFoundError(f"there is no card {path}; {ways}")
    if path.stat().st_size > LARGEST_CARD:
        raise ValueError(f"{path} is not a card: it has more than {LARGEST_CARD:,} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a card: {error}; get it again") from error
    kinds: dict[str, Any] = {field.name: get_origin(field.type) or field.type for field in dataclasses.fields(Card)}
    if not isinstance(content, dict) or content.keys() != kinds.keys():
        there = reprlib.repr(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} is not a complete card: it has {there}, not {sorted(kinds)}")
    for name, value in content.items():
        if type(value) is not (kind := kinds[name]):
            raise ValueError(f"{path} is not a card: {name} is {reprlib.repr(value)}, not of type {kind.__name__}")
        if isinstance(value, int) and not 0 <= value < 2**53:  # the whole numbers that JSON represents exactly
            raise ValueError(f"{path} is not a card: {name} is {reprlib.repr(value)}, not a count")
    card = Card(**content)
    if card.name != path.stem:
        raise ValueError(f"{path} is the card of {reprlib.repr(card.name)[1:-1]}; rename it back")
    wrong = [name for name in card.classes if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{path} is not a card: a class is {reprlib.repr(wrong[0])}, but classes are names")
    _check_measured(path, card.measured)
    return card


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def check_calibration(calibration: Any, what: str) -> None:
    """Raise ValueError unless it is empty or has a `temperature` above 0, and words in `fitted_on` if it has that."""
    if calibration == {}:
        return
    known: Any = calibration if isinstance(calibration, Mapping) else {}
    value, words = known.get("temperature"), known.get("fitted_on", "")
    valid = is_number(value) and 0 < value < HIGHEST_TEMPERATURE
    if not valid or not isinstance(words, str):
        raise ValueError(f"{what} is {reprlib.repr(calibration)}, without a valid temperature")


def _check_measured(path: Path, measured: Mapping[str, Any]) -> None:
    """Raise ValueError for invalid counts and shares, because commands calculate with them."""
    for name, most in (("test_accuracy", 1), ("correct", 2**53), ("test_images", 2**53)):
        value = measured.get(name, 0)
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise ValueError(f"{path} is not a card: measured.{name} is {reprlib.repr(value)}, not in 0 .. {most}")
    check_calibration(measured.get("calibration", {}), f"{path} is not a card: measured.calibration")
    images = measured.get("test_set", {"sha256": "", "name": None, "images": 0})
    kinds = {"sha256": str, "name": str | None, "images": int, "hashes": str}
    wrong = not isinstance(images, Mapping) or kinds.keys() - images.keys() - {"hashes"}
    if wrong or not all(isinstance(images[key], kinds[key]) for key in images if key in kinds):
        raise ValueError(f"{path} is not a card: measured.test_set is {reprlib.repr(images)}, which is not a test set")


def read_file(path: Path) -> tuple[Card, bytes]:
    """Read a card and the content of its file of tensors, after checking the size and sha256 of the latter.

    The file is beside the card, or else downloaded. Raises FileNotFoundError or ValueError, and says what to do, if a
    file is missing, damaged, or a different one.
    """
    card = read_card(path)
    file = path.with_suffix(".safetensors")
    if not file.is_file():
        if not card.url:
            raise FileNotFoundError(f"there are no weights {file}, only their card; put the file beside it")
        file = fetch(card.url, _place(path, card.sha256), card.sha256, card.size)
    other, again = f"{file} is not the file that its card describes: it has", "get it again, or publish its run again"
    if (size := file.stat().st_size) != card.size:  # checked before reading: the file may not fit into memory
        raise ValueError(f"{other} {size:,} bytes, not {card.size:,}; {again}")
    data = file.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != card.sha256:
        raise ValueError(f"{other} the sha256 {found}, not {card.sha256[:64]}; {again}")
    return card, data


def _place(path: Path, sha256: str) -> Path:
    """Return where to download the file of a card: beside the card if its place has other weights of that name."""
    beside = path.with_suffix(".safetensors")
    target = home("CVCC_ZOO_HOME") / beside.name
    other = target.with_suffix(".json")
    taken = other.is_file() and not other.samefile(path) and not (target.is_file() and digest(target) == sha256)
    return beside if taken else target


def read(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Read a card and its tensors. Raises FileNotFoundError or ValueError, as `read_file` does."""
    card, data = read_file(path)
    try:
        return card, tensors_of(data)
    except Exception as error:  # an error of safetensors, or a dtype that torch does not know
        raise ValueError(f"{card.name} has no readable tensors ({error}); get its file again, with its card") from error


def write_card(path: Path, card: Card) -> None:
    """Write or replace a card, without its file of tensors."""
    write_whole(path, _text(card).encode())


def change_card(path: Path, sha256: str, change: Callable[[Card], Card]) -> None:
    """Change a card as it is now: others may have added to it since its weights, with this `sha256`, were read.

    Raises ValueError if it is the card of other weights now.
    """
    with one_at_a_time(path):
        card = read_card(path)
        if card.sha256 != sha256:
            raise ValueError(f"{path} has become the card of other weights and is not changed; start again with these")
        write_card(path, change(card))


def write(folder: Path, card: Card, tensors: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32) -> Path:
    """Write tensors and card into a folder, and return the card's path; `sha256` and `size` are filled in.

    Floating-point tensors of more than one dimension are stored as `dtype`; statistics and biases keep their dtype.
    Both files are complete under temporary names before they replace earlier ones, which a full disk leaves in place.
    """
    stored = {
        name: tensor.to(dtype if tensor.is_floating_point() and tensor.ndim > 1 else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    if card.name != Path(card.name).name or not card.name:
        raise ValueError(f"{card.name!r} is not a file name; choose a tag without folders")
    data = bytes_of(stored)
    card = dataclasses.replace(card, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    target = folder / f"{card.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as described, whole_file(target.with_suffix(".safetensors")) as file:
        for each, content in ((file, data), (described, _text(card).encode())):
            each.write(content)
            each.flush()
            os.fsync(each.fileno())  # both, before the first of them is renamed
    return target


def _text(card: Card) -> str:
    """Return the card as JSON, with each row of numbers, such as those of a confusion matrix, on one line."""
    text = json_text(dataclasses.asdict(card))
    return re.sub(r"\[\n\s*([-\d.e+,\s]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)
