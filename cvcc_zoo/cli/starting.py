"""The weights that a training or a test starts from, and what is told about the images that they were trained on."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.training_images import other_images, tell_of_known_validation
from cvcc_zoo.cli.choices import EVALUATED
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.classes import some
from cvcc_zoo.weights.card import read_card
from cvcc_zoo.weights.checkpoint import Checkpoint, read_checkpoint
from cvcc_zoo.zoo.creation import use_weights
from cvcc_zoo.zoo.names import resolve_trained


def start_from(weights: str, model: ImageClassifier, data: ImageDataModule, command: str, *, tests: bool) -> None:
    """Put trained weights into a model, and say so, and if images that judge the model were among their images.

    These are the validation images of a training, and with `tests` the test images.

    Raises ValueError as `use_weights` does, and for other classes in a command that does not train.
    """
    known = use_weights(model, weights, data.classes)
    if known is not None and command != "fit":
        raise ValueError(
            f"the weights {weights} were trained on other classes than those of {data.dataset.title}; `cvcc-zoo fit` "
            "with them trains a new classifier"
        )
    of_known = f" that keeps what they know of {some(known)}" if known else ""
    classifier = "their classifier" if known is None else f"a new classifier{of_known}"
    rank_zero_info(f"Starts from the weights {weights}, with {classifier}")
    source = resolve_trained(weights)
    checkpoint = read_checkpoint(str(source.path)) if source.kind == "checkpoint" else None
    if command == "fit":
        images = (checkpoint or read_card(Path(str(source.path)))).images
        tell_of_known_validation(model, weights, images, data)
    if tests and checkpoint:
        tell_of_other_images(checkpoint, model, data, command)


def tell_of_other_images(checkpoint: Checkpoint, model: ImageClassifier, data: ImageDataModule, command: str) -> None:
    """Say so if a command evaluates images in the place of those of a checkpoint's run that are others now."""
    run, made, split = str(checkpoint.path.parent), checkpoint.settings.get("data"), EVALUATED[command]
    if warning := other_images(run, model, data, made, checkpoint.images, "val" if split == "val" else "test"):
        rank_zero_info(warning)
