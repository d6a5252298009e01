"""The weights that a training or a test starts from, and what is told about the images that they were trained on."""

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.training_images import other_images, tell_of_known_validation
from cvcc_zoo.cli.choices import EVALUATED
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.classes import some
from cvcc_zoo.weights.checkpoint import Checkpoint
from cvcc_zoo.zoo.creation import read_weights, use_weights
from cvcc_zoo.zoo.names import resolve_trained
from cvcc_zoo.zoo.published import Published


def start_from(name: str, model: ImageClassifier, data: ImageDataModule, command: str, run: Namespace | None) -> None:
    """Put trained weights into a model, and say so; also say if they know images that will judge the model.

    These are the images that the command evaluates, or those of the validation and test of a training, whose options
    are `run`; None for one that writes no run folder.

    Raises ValueError as `load` and `use_weights` do, and for other classes in a command that does not train.
    """
    weights = read_weights(resolve_trained(name))
    known = use_weights(model, weights, data.classes)
    if known is not None and command != "fit":
        raise ValueError(
            f"the weights {name} were trained on other classes than those of {data.dataset.title}; `cvcc-zoo fit` "
            "with them trains a new classifier"
        )
    of_known = f" that keeps what they know of {some(known)}" if known else ""
    classifier = "their classifier" if known is None else f"a new classifier{of_known}"
    rank_zero_info(f"Starts from the weights {name}, with {classifier}")
    if run is not None and run.trainer.limit_val_batches != 0:
        images = weights.card.images if isinstance(weights, Published) else weights.images
        tell_of_known_validation(model, name, images, weights.hparams | weights.shaping, data)
    if (command != "fit" or (run is not None and run.test)) and isinstance(weights, Checkpoint):
        tell_of_other_images(weights, model, data, command)


def tell_of_other_images(checkpoint: Checkpoint, model: ImageClassifier, data: ImageDataModule, command: str) -> None:
    """Say so if a command evaluates images in the place of those of a checkpoint's run that are others now."""
    run, made, split = str(checkpoint.path.parent), checkpoint.settings.get("data"), EVALUATED[command]
    if warning := other_images(run, model, data, made, checkpoint.images, "val" if split == "val" else "test"):
        rank_zero_info(warning)
