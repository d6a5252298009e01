"""Classes of images by name: of files, of images of Pillow, of arrays and of tensors."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvcc_zoo.classifier.heads import Headed
from cvcc_zoo.classifier.network import evaluating
from cvcc_zoo.data.decode import Decoding, Tally
from cvcc_zoo.data.decoded import raise_all
from cvcc_zoo.data.identity import NO_PIXELS, Pixels
from cvcc_zoo.data.opening import NeedsOptionError, UnreadableImageError
from cvcc_zoo.data.shaping import shaping_of
from cvcc_zoo.data.workers import processors, read_each
from cvcc_zoo.files.own import expanded, shown
from cvcc_zoo.kinds import check_whole

BATCH = 256
Ranking = list[tuple[str, float]]
"""The most probable classes of an image, best first, with their probabilities in [0, 1]."""
TAKEN = (
    "give a path, an image of Pillow, a uint8 array (H, W), (H, W, C) or (N, H, W, C), a tensor (C, H, W) or "
    "(N, C, H, W), or a list of them"
)


class Predicting(Headed):
    """A model that names the classes of images."""

    classes: tuple[str, ...] | None = None  # names in the order of the logits; None before it is trained on images
    shaping: dict[str, str] = shaping_of(None)  # how image files became pixels in training
    seen_images: Pixels = NO_PIXELS  # hashes of a user's own images that the weights were trained on or chosen by
    divided_anew = False  # whether images for validation may have been training images before

    def decoding(self) -> Decoding:
        """Return options that decode image files for the model as in training."""
        as_in_training: dict[str, Any] = {**self.shaping, "same_size": False, "grey_only": False}
        return Decoding(self.image_size, self.in_channels, **as_in_training)

    @overload
    def predict(self, images: str | Path | Image.Image, top: int = 5) -> Ranking: ...

    @overload
    def predict(self, images: Sequence[Any], top: int = 5) -> list[Ranking]: ...

    @overload
    def predict(self, images: Any, top: int = 5) -> Any: ...

    def predict(self, images: Any, top: int = 5) -> Any:
        """Return the names and probabilities of the `top` most probable classes (or of all, if these are fewer).

        For one image it is a list of pairs, the most probable class first; for several (a list, or an array or a tensor
        with N images) a list of such lists. Classes are called by their numbers if the model does not know their names.

        Files, images of Pillow and uint8 arrays (H, W), (H, W, C) or (N, H, W, C) become pixels as in training. Tensors
        (C, H, W) or (N, C, H, W) are raw images, which the model takes as they are. The model computes in evaluation
        mode and returns to its own mode. Raises ValueError for anything else, and names every file that cannot be read.
        """
        self.check_head()
        check_whole("top", top, 1)
        names = self.classes or tuple(map(str, range(self.num_classes)))
        single = _is_one(images)
        given = list(images) if isinstance(images, list | tuple) else [images]
        with evaluating(self):
            stacks = _pixels_of([images] if single else given, self.decoding())
            rows = [row for each in stacks for row in most_probable(self, each, names, min(top, self.num_classes))]
        return rows[0] if single else rows


def most_probable(model: Predicting, images: Tensor, names: Sequence[str], top: int) -> list[Ranking]:
    """Return the `top` most probable classes of each raw image (N, C, H, W), computed on the device of the model."""
    found = []
    for batch in torch.split(images, BATCH):
        with torch.inference_mode():
            found += ranked(model(batch.to(model.weights_device)).float().softmax(1), names, top)
    return found


def ranked(probabilities: Tensor, names: Sequence[str], top: int) -> list[Ranking]:
    """Return the `top` most probable classes of each row of probabilities (N, num_classes)."""
    best = probabilities.topk(top)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [[(names[index], share) for index, share in zip(indices, shares, strict=True)] for shares, indices in rows]


def _is_one(images: Any) -> bool:
    """Return whether this is one image, not several."""
    if isinstance(images, Tensor):
        return images.ndim == 3
    if isinstance(images, np.ndarray):
        return images.ndim in (2, 3)
    return not isinstance(images, list | tuple)


def _pixels_of(images: Sequence[Any], decoding: Decoding) -> Iterator[Tensor]:
    """Yield raw images (N, C, H, W), in order. Raises ValueError, which names all files that cannot be read."""
    broken = dict[Path, ValueError]()
    for are_files, group in groupby(images, key=lambda each: isinstance(each, str | Path)):
        some = list(group)
        if not are_files:
            yield from (_pixels(each, decoding) for each in some)
            continue
        _check_channels(decoding)
        files = [_existing(file) for file in some]
        for start in range(0, len(files), BATCH):
            pixels = read_pixels(files[start : start + BATCH], decoding, Tally(), broken)
            for error in broken.values():
                if isinstance(error, NeedsOptionError):
                    reason = str(error).rpartition("; ")[0]  # without the advice to give an option
                    raise ValueError(f"{reason}; make it smaller, or give it as an image of Pillow") from error
            yield pixels
    raise_all(list(broken.values()))


def _existing(file: str | Path) -> Path:
    path = expanded(file)
    if not path.exists():
        raise FileNotFoundError(f"there is no image {shown(path)}")
    if path.is_dir():
        raise ValueError(
            f"{shown(path)} is a folder; give a list of its images, such as sorted(Path(...).glob('*.png')), or use "
            "`cvcc-zoo predict`"
        )
    return path


def _check_channels(decoding: Decoding) -> None:
    if decoding.in_channels not in (1, 3):
        raise ValueError(
            f"files and images of Pillow have 1 or 3 channels, and the model takes {decoding.in_channels}; give a "
            "tensor (C, H, W) or (N, C, H, W)"
        )


def _pixels(image: Any, decoding: Decoding) -> Tensor:
    """Return an image of Pillow, an array or a tensor as raw images (N, C, H, W)."""
    if isinstance(image, Tensor) and image.ndim in (3, 4):
        return image if image.ndim == 4 else image[None]
    if isinstance(image, np.ndarray) and image.ndim in (2, 3, 4):
        if image.dtype != np.uint8:
            raise ValueError(
                f"an array of images is uint8, 0..255, and this one {image.dtype}; scale it as in training and convert "
                "it, or give a tensor (N, C, H, W) with values in 0..1"
            )
        if image.ndim == 4:
            return torch.cat([torch.from_numpy(decoding.none()), *(_pixels(each, decoding) for each in image)])
        if image.ndim == 3 and image.shape[2] not in (1, 3):
            bands = "give three of its channels, or an image of Pillow (mode RGBA) if one is opacity"
            more = bands if image.shape[2] == 4 else "a tensor is (C, H, W)"
            raise ValueError(f"an image as an array is (H, W), or (H, W, C) with C 1 or 3, not {image.shape}; {more}")
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if not isinstance(image, Image.Image):
        shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
        raise ValueError(f"this is not an image: {type(image).__name__}{shape}; {TAKEN}")
    _check_channels(decoding)
    try:
        return torch.from_numpy(decoding.pixels("the image", image))[None]
    except (OSError, SyntaxError) as error:  # Pillow reads the pixels of a file only now
        raise UnreadableImageError(f"the image cannot be read ({error}); its file is damaged or cut off") from error


def read_pixels(files: Sequence[Path], decoding: Decoding, tally: Tally, broken: dict[Path, ValueError]) -> Tensor:
    """Return the image files that can be decoded, uint8 (N, C, H, W); errors of the others are added to `broken`."""
    found, paths = [decoding.none()], [str(file) for file in files]
    for path, outcome in read_each(paths, decoding.counted, at_once=max(1, -(-len(paths) // processors()))):
        if isinstance(outcome, ValueError):
            broken[Path(path)] = outcome
            continue
        pixels, counted = outcome
        found.append(pixels[None])
        tally.merge(counted)
    return torch.from_numpy(np.concatenate(found))
