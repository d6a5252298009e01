"""Example images: some of the bundled Fashion-MNIST, and simple drawings of classes of CIFAR-10."""

from pathlib import Path

from PIL import Image, ImageDraw

from cvcc_zoo.data.datasets import FASHION_CLASSES, FashionMini

CLOTHES = 5
SIDE = 256  # pixels of a drawing
SHIP = {
    "#9ec9ee": [(0, 0), (256, 0), (256, 256), (0, 256)],
    "#1f4e79": [(0, 176), (256, 176), (256, 256), (0, 256)],
    "#7a1f1f": [(24, 140), (236, 140), (204, 200), (56, 200)],
    "#f4f4f0": [(76, 104), (176, 104), (176, 140), (76, 140)],
    "#333333": [(112, 64), (136, 64), (136, 104), (112, 104)],
}
AIRPLANE = {
    "#a9d3f5": [(0, 0), (256, 0), (256, 256), (0, 256)],
    "#e8ebef": [(20, 132), (44, 120), (200, 112), (240, 128), (200, 144), (44, 142)],
    "#b9c0c9": [(104, 132), (150, 132), (110, 212), (88, 212)],
    "#c9cfd6": [(112, 118), (144, 118), (116, 66), (98, 66)],
    "#c8372d": [(24, 128), (56, 124), (34, 76), (16, 76)],
}
TRUCK = {
    "#c7d2da": [(0, 0), (256, 0), (256, 256), (0, 256)],
    "#6b6f73": [(0, 200), (256, 200), (256, 256), (0, 256)],
    "#f1f1ee": [(20, 72), (160, 72), (160, 192), (20, 192)],
    "#b3261e": [(164, 104), (212, 104), (240, 144), (240, 192), (164, 192)],
    "#22303c": [(176, 114), (206, 114), (222, 144), (176, 144)],
}
WHEELS = ((56, 192), (112, 192), (204, 192))
Shape = dict[str, list[tuple[int, int]]]


def write_examples(folder: Path) -> list[Path]:
    """Write the examples as PNG files into a folder, and return their paths."""
    drawn = {"ship": draw(SHIP), "airplane": draw(AIRPLANE), "truck": draw(TRUCK, WHEELS)}
    found = FashionMini().load("test")
    assert found is not None
    for label in range(CLOTHES):
        first = int((found.labels == label).nonzero()[0])
        drawn[FASHION_CLASSES[label].replace("/", " or ")] = Image.fromarray(found.images[first, 0].numpy())
    paths = [folder / f"{name}.png" for name in drawn]
    for path, image in zip(paths, drawn.values(), strict=True):
        image.save(path)
    return paths


def draw(shapes: Shape, wheels: tuple[tuple[int, int], ...] = ()) -> Image.Image:
    """Draw polygons by colour, in order, and black wheels around some points."""
    image = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    for colour, corners in shapes.items():
        pen.polygon(corners, fill=colour)
    for x, y in wheels:
        pen.ellipse((x - 18, y - 18, x + 18, y + 18), fill="#151515")
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill="#9a9a9a")
    return image
