"""`cvcc-zoo templates NAME...`: draw the templates of linear classifiers as images."""

from collections.abc import Sequence

from torch import Tensor

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data.pictures import pixels
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.linear.templates import templates
from cvcc_zoo.plots.scores import plot_templates
from cvcc_zoo.printing import say
from cvcc_zoo.zoo.names import told_apart
from cvcc_zoo.zoo.trained import Trained, find_trained


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser(
        "templates", "NAME... [options]", "A template is the gradient of a score by the pixels; grey is 0."
    )
    parser.add_argument(
        "names", type=str, nargs="+", help="Published weights, paths of cards, run folders or checkpoints."
    )
    parser.add_argument("--output", type=str, default="templates.png", help="The PNG file to write.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command."""
    config = parser().parse_args(list(args))
    output = file_to_write(config.output, ".png")
    found = [find_trained(name) for name in config.names]
    classes = found[0].classes
    for trained in found:
        if trained.classes != classes:
            raise ValueError(f"{trained.name} has other classes than {found[0].name}; draw it separately")
    names = told_apart([trained.name for trained in found], config.names)
    rows = [(name, pixels(_templates(trained))) for name, trained in zip(names, found, strict=True)]
    write_picture(output, plot_templates(rows, classes))
    say(f"written to {output}")
    return 0


def _templates(trained: Trained) -> Tensor:
    try:
        return templates(trained.model)
    except ValueError as error:
        raise ValueError(f"{trained.name}: {error}") from error
