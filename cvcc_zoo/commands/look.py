"""`cvcc-zoo augmentations` and `cvcc-zoo whitening`: draw how the images of a data set are changed."""

from collections.abc import Sequence

from cvcc_zoo.cli.arguments import parse, rewrite
from cvcc_zoo.cli.images import AUGMENTATIONS, WHITENING, add_images
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.printing import say


def parser(command: str) -> ZooParser:
    """Return the parser of `augmentations` or `whitening`."""
    made = command_parser(command, "[options]")
    add_images(made, AUGMENTATIONS if command == "augmentations" else WHITENING)
    made.add_argument("--images", type=int, default=8, help="Number of images.")
    if command == "augmentations":
        made.add_argument("--draws", type=int, default=8, help="Number of augmentations of each image.")
    made.add_argument("--output", type=str, default=f"{command}.png", help="The PNG file to write.")
    return made


def main(command: str, args: Sequence[str]) -> int:
    """Run the command: read the data set, and write a PNG file."""
    made = parser(command)
    config = parse(made, rewrite(args))
    data = made.instantiate(config).data
    output = file_to_write(config.output, ".png")
    if command == "augmentations":
        figure = data.plot_augmentations(config.images, config.draws)
    else:
        figure = data.plot_whitening(config.images)
    write_picture(output, figure)
    say(f"written to {output}")
    return 0
