"""A trained model by any of its names, with its classes and the preparation of its images."""

import json
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.images import Split
from cvcc_zoo.files.download import digest
from cvcc_zoo.weights.card import Card
from cvcc_zoo.weights.checkpoint import Checkpoint
from cvcc_zoo.zoo.catalogue import name_of
from cvcc_zoo.zoo.creation import read_weights
from cvcc_zoo.zoo.names import resolve_trained
from cvcc_zoo.zoo.published import Published

WHICH = ("dataset", "root", "classes", "image_size")
"""Options of an ImageDataModule that belong to one data set; the size may be that of its images."""


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode, and what its users need to know."""

    name: str
    """The name of the published weights (resnet20.cifar10), of the run folder, or of the checkpoint."""
    model: ImageClassifier
    dataset: str
    """The training data, in words; empty if unknown."""
    classes: list[str]
    """Names of the classes, in the order of the logits; numbers if they are unknown."""
    sha256: str
    """The sha256 of the file of the weights."""
    file: Path
    """The checkpoint, or the card of published weights."""
    card: Card | None = None
    """The content of that card."""
    data: dict[str, Any] = field(default_factory=dict)
    """The options of the run's ImageDataModule; empty for published weights."""
    images: dict[Split, dict[str, Any]] = field(default_factory=dict)
    """The identities of a run's training images and of those held out; empty if unknown, and for published weights."""

    def image_options(self, dataset: str | None = None) -> dict[str, Any]:
        """Return options of an ImageDataModule: those of the run, or else those that prepare images as in training.

        If another data set than the run's is chosen, those that say which images the run has are left out, and always
        those that ImageDataModule does not know, as the file may be older or newer.
        """
        own = self.data.get("dataset") or ("folder" if self.data.get("root") else None)
        prepared = {"image_size": self.model.image_size, **self.model.shaping}
        taken = signature(ImageDataModule).parameters.keys() - (() if dataset in (None, own) else WHICH)
        return {**prepared, **{option: value for option, value in self.data.items() if option in taken}}

    def labels(self) -> dict[str, str]:
        """Return the metadata of an exported file; `classes` is a JSON list."""
        hparams, temperature = self.model.hparams, self.model.temperature
        how = self.model.shaping
        square = f"{how['resize']} to a square by Pillow's bicubic filter"
        grey = "; grey is 0.299 R + 0.587 G + 0.114 B" if hparams["in_channels"] == 1 else ""
        divided = "" if temperature == 1 else f", divided by the temperature {temperature:g}"
        return {
            "name": self.name,
            "model": name_of(type(self.model).__name__, hparams),
            "dataset": self.dataset,
            "classes": json.dumps(self.classes),
            "sha256": self.sha256,
            "input": f"uint8 (N, {hparams['in_channels']}, {hparams['image_size']}, {hparams['image_size']}), 0..255",
            "pictures": f"turned upright by EXIF; {square}; {how['background']} behind transparency{grey}",
            "output": f"logits, float32 (N, {hparams['num_classes']}){divided}",
        }


def find_trained(name: str | Path) -> Trained:
    """Return a trained model by any name that `cvcc_zoo.zoo.names` lists.

    Raises FileNotFoundError or ValueError as `load` does.
    """
    source = resolve_trained(name)
    weights = read_weights(source)
    file, model = weights.path, weights.model
    if isinstance(weights, Published):
        card = weights.card
        return Trained(card.name, model, card.dataset, card.classes, card.sha256, file, card)
    assert isinstance(weights, Checkpoint) and source.path is not None
    classes = list(weights.classes or map(str, range(model.num_classes)))
    in_a_run = source.path.is_dir() or (file.parent / "config.yaml").is_file()
    title = file.parent.resolve().name if in_a_run else file.stem
    data = weights.settings.get("data")
    options = data if isinstance(data, dict) else {}
    return Trained(title, model, weights.dataset, classes, digest(file), file, data=options, images=weights.images)
