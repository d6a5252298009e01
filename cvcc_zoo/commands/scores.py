"""`cvcc-zoo scores NAME --data...`: draw the scores of some test images, and the margins of all."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.cli.arguments import with_its_images
from cvcc_zoo.cli.images import MODEL, add_images
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data.identity import title_of_test
from cvcc_zoo.data.pictures import pixels
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.losses import crammer_singer, cross_entropy, hinge
from cvcc_zoo.plots import Pictures
from cvcc_zoo.plots.scores import Scored, plot_scores
from cvcc_zoo.printing import say
from cvcc_zoo.runs.scores import margins, scores
from cvcc_zoo.zoo.trained import find_trained


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser(
        "scores", "NAME [options]", "The images are by default those of the model's run, or fashion-mini."
    )
    parser.add_argument("name", type=str, help="Published weights, the path of a card, a run folder or a checkpoint.")
    add_images(parser, MODEL)
    parser.add_argument("--images", type=int, default=6, help="Number of images whose scores are drawn.")
    parser.add_argument("--output", type=str, default="scores.png", help="The PNG file to write.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command."""
    made = parser()
    config, trained = with_its_images(made, args, find_trained)
    output = file_to_write(config.output, ".png")
    data = made.instantiate(config).data
    logits, labels = scores(trained.model, data)
    if not 1 <= config.images <= len(labels):
        raise ValueError(f"choose 1 to {len(labels):,} of the test images: --images=6, not {config.images}")
    if not logits.isfinite().all():
        raise ValueError(
            f"{trained.name} gives scores that are not finite numbers; train it again with a lower learning rate"
        )
    chosen = torch.arange(config.images) * len(labels) // config.images
    pictures = pixels(data.test_dataloader().images[chosen])
    some = [
        _scored(trained.model, picture, each, label)
        for picture, each, label in zip(pictures, logits[chosen], labels[chosen], strict=True)
    ]
    title = f"{trained.name} on {title_of_test(data)}"
    write_picture(output, plot_scores(some, margins(logits, labels).numpy(), data.classes, title))
    say(f"written to {output}")
    return 0


def _scored(model: ImageClassifier, picture: Pictures, logits: Tensor, label: Tensor) -> Scored:
    """Return an image with its scores, margin and loss, by the loss function that the model was trained with.

    Only its probability is computed with the model's temperature.
    """
    loss, one, true = model.loss, logits[None], label[None]
    note, limit = f"margin {margins(one, true).item():+.2f}, loss {loss(one, true):.2f}", None
    if loss.function is cross_entropy:
        note += f", p = {(logits / model.temperature).softmax(0)[label]:.2f}"
    if loss.function in (hinge, crammer_singer):
        limit = float(logits[label]) - loss.options.get("margin", 1.0)
    return Scored(picture, logits.numpy(), int(label), note, limit)
