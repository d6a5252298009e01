"""`cvcc-zoo augmentations` and `cvcc-zoo whitening`: pictures of what is done to the images of a data set."""

from collections.abc import Sequence

from cvcc_zoo.cli.choices import parse
from cvcc_zoo.cli.expansion import expand_args, install_yaml
from cvcc_zoo.cli.parsing import ZooParser
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.printing import say

SUMMARIES = {
    "augmentations": "Draw originals and several draws of each.",
    "whitening": "Draw images before and after whitening, the eigenvalues and the filters.",
}


def main(command: str, args: Sequence[str]) -> int:
    """Run the command: read the data set, draw, write a PNG file."""
    install_yaml()
    parser = ZooParser(
        prog=f"cvcc-zoo {command}", usage=f"cvcc-zoo {command} [options]", description=SUMMARIES[command]
    )
    parser.add_class_arguments(ImageDataModule, "data")
    parser.add_argument("--images", type=int, default=8, help="How many images are drawn.")
    if command == "augmentations":
        parser.add_argument("--draws", type=int, default=8, help="How many draws of each are drawn.")
    parser.add_argument("--output", type=str, default=f"{command}.png", help="The PNG file that is written.")
    config = parse(parser, expand_args(args))
    data = parser.instantiate(config).data
    output = file_to_write(config.output, ".png")
    if command == "augmentations":
        figure = data.plot_augmentations(config.images, config.draws)
    else:
        figure = data.plot_whitening(config.images)
    write_picture(output, figure)
    say(f"written to {output}")
    return 0
