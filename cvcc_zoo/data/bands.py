"""Pictures in bands of some rows: a large one takes the memory of its decoded pixels and little more.

All results have the same bits as those of the whole picture at once: what is done to each pixel by itself does not
depend on the others, and Pillow resizes every row by itself, then every column (of a very tall picture first columns).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

PIXELS = 2_000_000  # of a band
TALL = 100  # times as high as wide; Pillow resizes the columns of such a picture first
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

_ORIENTATION = 0x0112  # Exif 2.32, table 4: turns and whether they swap the sides, mirror x, mirror y of the file
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: (Image.Transpose.ROTATE_180, False, True, True),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: (Image.Transpose.TRANSPOSE, True, False, False),
    6: (Image.Transpose.ROTATE_270, True, False, True),
    7: (Image.Transpose.TRANSVERSE, True, True, True),
    8: (Image.Transpose.ROTATE_90, True, True, False),
}


def _as_it_is(band: Image.Image) -> Image.Image:
    return band


@dataclass(frozen=True)
class Picture:
    """A decoded image, turned upright by its EXIF orientation, of which each band goes through `change`.

    `change` treats every pixel by itself.
    """

    image: Image.Image
    orientation: int
    change: Callable[[Image.Image], Image.Image] = _as_it_is

    @classmethod
    def decoded(cls, file: Image.Image) -> "Picture":
        """Decode an open file."""
        file.load()
        return cls(file, file.getexif().get(_ORIENTATION, 1))  # a TIFF was turned by load()

    def then(self, change: Callable[[Image.Image], Image.Image]) -> "Picture":
        """The picture whose bands also go through `change`."""
        return Picture(self.image, self.orientation, lambda band: change(self.change(band)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        width, height = self.image.size
        return (height, width) if _TURNS.get(self.orientation, (None, False))[1] else (width, height)

    def bands(self, *, of_columns: bool = False) -> Iterator[tuple[tuple[int, int], Image.Image]]:
        """The position (x, y) and the pixels of each band; a small picture has one."""
        width, height = self.size
        across, length = (height, width) if of_columns else (width, height)
        step = max(1, PIXELS // across)
        for start in range(0, length, step):
            end = min(start + step, length)
            box = (start, 0, end, height) if of_columns else (0, start, width, end)
            yield box[:2], self.change(self._part(*box))

    def resize(self, size: tuple[int, int], box: Box | None = None) -> Image.Image:
        """The pixels inside of `box` (all by default), resized to (width, height) with bicubic interpolation."""
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
        """The upright pixels inside of a box."""
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
