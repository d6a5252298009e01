"""A trained model by any of its names, with what a user of it has to know: its classes above all."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.shaping import check_shaping
from cvcc_zoo.files.plain import read_yaml
from cvcc_zoo.weights.card import find_card, list_cards, read_card
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.zoo.catalogue import name_of
from cvcc_zoo.zoo.creation import load


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode, and what a user of it has to know."""

    name: str
    """Of the published weights (resnet20.cifar10), of the run folder, or of the checkpoint."""
    model: ImageClassifier
    dataset: str
    """What it was trained on, in words; empty if that is not known."""
    classes: list[str]
    """Names of the classes, in the order of the logits; numbers if they are not known."""
    sha256: str
    """Of the file that the weights were read from."""
    pictures: dict[str, str] = field(default_factory=lambda: pictures_of(None))
    """How image files became pixels in training: `resize` and `background` of the ImageDataModule."""
    data: dict[str, Any] = field(default_factory=dict)
    """The options of the run's ImageDataModule; none for published weights."""

    def decoding(self) -> Decoding:
        """What makes pixels of image files for the model, as in training."""
        size, channels = self.model.image_size, self.model.in_channels
        decoding = Decoding(size, channels, same_size=False, grey_only=False)
        return replace(decoding, resize=self.pictures["resize"], background=self.pictures["background"])

    def labels(self) -> dict[str, str]:
        """What an exported file says of itself; `classes` is a JSON list."""
        hparams = self.model.hparams
        return {
            "name": self.name,
            "model": name_of(type(self.model).__name__, hparams),
            "dataset": self.dataset,
            "classes": json.dumps(self.classes),
            "sha256": self.sha256,
            "input": f"uint8 (N, {hparams['in_channels']}, {hparams['image_size']}, {hparams['image_size']}), 0..255",
            "pictures": "turned upright by EXIF; {resize} to a square; {background} behind transparency".format_map(
                self.pictures
            ),
            "output": f"logits, float32 (N, {hparams['num_classes']})",
        }


def find_trained(name: str) -> Trained:
    """The model of published weights by their name, of a card, of a run folder or of a checkpoint.

    Raises FileNotFoundError or ValueError as `load` does. A checkpoint that is too old to name its classes has those of
    the data set in the config.yaml beside it, which must still be there.
    """
    path = where(name)
    if path.suffix == ".json":
        model, card = load(path), read_card(path)
        pictures = pictures_of(card.training.get("recipe"))
        return Trained(card.name, model, card.dataset, card.classes, card.sha256, pictures)
    found = read_checkpoint(path)
    file, model = found.path, load(found.path)
    config = file.parent / "config.yaml"
    dataset, classes = (found.dataset, list(found.classes)) if found.classes else _data_of(config, model.num_classes)
    in_a_run = path.is_dir() or config.is_file()
    title = file.parent.resolve().name if in_a_run else file.stem
    whole = read_yaml(found.config, f"the config in {file}") if found.config else None
    data = whole.get("data") if isinstance(whole, dict) else None
    about = (pictures_of(whole), data if isinstance(data, dict) else {})
    return Trained(title, model, dataset, classes, hashlib.sha256(file.read_bytes()).hexdigest(), *about)


def where(name: str) -> Path:
    """The card (.json) of published weights by their name, or the path of a card, a run folder or a checkpoint.

    Published weights come before a path of the same name. Raises ValueError with the nearest names.
    """
    path = Path(name).expanduser()
    is_path = path.exists() or len(path.parts) > 1 or path.suffix in (".json", ".ckpt")
    return find_card(name) if name in list_cards() or not is_path else path


def pictures_of(config: Any) -> dict[str, str]:
    """`resize` and `background` of a run's config, or their defaults. Raises ValueError for impossible ones."""
    data = config.get("data") if isinstance(config, Mapping) else None
    options = data if isinstance(data, Mapping) else {}
    resize, background = str(options.get("resize", "squash")), str(options.get("background", "white"))
    check_shaping(resize, background)
    return {"resize": resize, "background": background}


def _data_of(config: Path, num_classes: int) -> tuple[str, list[str]]:
    """The data set of a run and its classes; numbers for a checkpoint without a run."""
    if not config.is_file():
        return "", [str(number) for number in range(num_classes)]
    try:
        options = read_yaml(config.read_text(), "it")["data"]
        data = ImageDataModule(**{**options, "augmentations": "none"})  # for the classes no import path is followed
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{config} says which data set names the classes, and that cannot be read ({error}); "
            "put it back, or correct `data` in that file"
        ) from error
    if data.num_classes != num_classes:
        raise ValueError(
            f"the data set in {config} has {data.num_classes} classes now, and the model {num_classes}; "
            "bring it back to what it was in training"
        )
    return data.dataset.title, list(data.classes)
