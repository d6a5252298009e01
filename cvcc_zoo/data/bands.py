"""Process large images in bands of rows, so that they need little more memory than their decoded pixels.

Every result is bit for bit that of the whole image: changes are pixelwise, and Pillow resizes each row independently,
then each column (in a very tall image the columns first).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

PIXELS = 2_000_000  # in a band
TALL = 100  # height / width above which Pillow resizes the columns first
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

_ORIENTATION = 0x0112  # Exif 2.32, table 4
_TURNS = {  # orientation: how to turn the image; does that swap the sides, mirror x, mirror y?
    2: (Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: (Image.Transpose.ROTATE_180, False, True, True),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: (Image.Transpose.TRANSPOSE, True, False, False),
    6: (Image.Transpose.ROTATE_270, True, False, True),
    7: (Image.Transpose.TRANSVERSE, True, True, True),
    8: (Image.Transpose.ROTATE_90, True, True, False),
}


def _unchanged(band: Image.Image) -> Image.Image:
    return band


@dataclass(frozen=True)
class UprightImage:
    """A decoded image, turned upright by its EXIF orientation; its bands go through `change`, which is pixelwise."""

    image: Image.Image
    orientation: int
    change: Callable[[Image.Image], Image.Image] = _unchanged

    @classmethod
    def decoded(cls, file: Image.Image) -> "UprightImage":
        """Decode an open file."""
        file.load()
        return cls(file, file.getexif().get(_ORIENTATION, 1))  # load() has already turned a TIFF

    def then(self, change: Callable[[Image.Image], Image.Image]) -> "UprightImage":
        """Return the same image with `change` applied to its bands as well."""
        return UprightImage(self.image, self.orientation, lambda band: change(self.change(band)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        width, height = self.image.size
        return (height, width) if _TURNS.get(self.orientation, (None, False))[1] else (width, height)

    def bands(self, *, of_columns: bool = False) -> Iterator[tuple[tuple[int, int], Image.Image]]:
        """Yield the position (x, y) and the pixels of each band; a small image has one."""
        width, height = self.size
        across, length = (height, width) if of_columns else (width, height)
        step = max(1, PIXELS // across)
        for start in range(0, length, step):
            end = min(start + step, length)
            box = (start, 0, end, height) if of_columns else (0, start, width, end)
            yield box[:2], self.change(self._part(*box))

    def resize(self, size: tuple[int, int], box: Box | None = None) -> Image.Image:
        """Resize the pixels inside `box` (all by default) to (width, height) with bicubic interpolation."""
        width, height = self.size
        left, upper, right, lower = box or (0, 0, width, height)
        method, columns_first = Image.Resampling.BICUBIC, height > TALL * width and size[1] < height
        if width * height <= PIXELS:
            return self.change(self._part(0, 0, width, height)).resize(size, method, (left, upper, right, lower))
        half = None
        for (x, y), band in self.bands(of_columns=columns_first):
            if columns_first:
                done = band.resize((band.width, size[1]), method, (0, upper, band.width, lower))
            else:
                done = band.resize((size[0], band.height), method, (left, 0, right, band.height))
            half = half or Image.new(done.mode, (width, size[1]) if columns_first else (size[0], height))
            half.paste(done, (x, y))
        assert half is not None
        return half.resize(size, method, (left, 0, right, size[1]) if columns_first else (0, upper, size[0], lower))

    def _part(self, left: int, upper: int, right: int, lower: int) -> Image.Image:
        """Cut out the upright pixels inside a box."""
        if self.orientation not in _TURNS:
            whole = (0, 0, *self.image.size)
            return self.image if (left, upper, right, lower) == whole else self.image.crop((left, upper, right, lower))
        turn, swaps, mirrors_x, mirrors_y = _TURNS[self.orientation]
        if swaps:
            left, upper, right, lower = upper, left, lower, right
        if mirrors_x:
            left, right = self.image.width - right, self.image.width - left
        if mirrors_y:
            upper, lower = self.image.height - lower, self.image.height - upper
        return self.image.crop((left, upper, right, lower)).transpose(turn)
