"""Commands on a trained model, whose images are those of its training unless others are chosen."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from cvcc_zoo.cli.choices import parse
from cvcc_zoo.cli.expansion import expand_args
from cvcc_zoo.zoo.trained import Trained, find_trained


def with_its_images(parser: ArgumentParser, words: Sequence[str]) -> tuple[Namespace, Trained]:
    """Options of a command on the model that its option `name` says, and the model.

    The images are by default those that the model of a run was trained on. Raises as `find_trained`.
    """
    words = expand_args(words)
    trained = find_trained(parse(parser, words).name)
    parser.set_defaults({f"data.{option}": value for option, value in trained.data.items()})
    return parse(parser, words), trained
