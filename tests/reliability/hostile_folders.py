"""What the tests of image folders and their cache share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cvcc_zoo.data.folder import image_folder


def pixels(root: Path, **more: Any) -> torch.Tensor:
    """The training images."""
    images = image_folder(root, **more).load("train")
    assert images is not None
    return images.images


def last_pixel(root: Path, **more: Any) -> list[int]:
    """The colour in the upper left corner of the last training image, the last of the class red."""
    return pixels(root, **more)[-1, :, 0, 0].tolist()


def cache() -> list[str]:
    """What lies in the cache of decoded images."""
    place = Path("data-home/decoded")
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def in_child(act: Callable[[], Any]) -> str:
    """Run in a process of its own, and return the message of the ValueError or OSError; "" if it was killed."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            act()
            said = "no error"
        except (ValueError, OSError) as error:
            said = str(error)
        except BaseException as error:
            said = f"unexpected {error!r}"
        os.write(writer, said.encode(errors="replace"))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said
