"""Archives of torch.save that are damaged, or made to look like another thing than they are."""

import copy
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cvcc_zoo import create

Content = dict[str, Any]


class Touch:
    """What a pickle of it makes when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def content(name: str = "linear", **options: Any) -> Content:
    """A checkpoint that is right."""
    torch.manual_seed(0)
    model = create(name, num_classes=3, in_channels=1, image_size=8, **options)
    state = {key: torch.rand(tensor.shape).to(tensor.dtype) for key, tensor in model.state_dict().items()}
    return {
        "cvcc_zoo": {"family": type(model).__name__},
        "hyper_parameters": copy.deepcopy(dict(model.hparams)),
        "state_dict": state,
    }


def pickled(instructions: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A checkpoint whose pickle is another one."""

    def write(path: Path) -> None:
        torch.save(content(), path)
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, instructions(data) if name.endswith("data.pkl") else data)

    return write


def claims(elements: int) -> Callable[[bytes], bytes]:
    """A storage of 3 * 64 numbers that says it has more."""
    number, other = b"K" + struct.pack("<B", 192), b"\x8a\x08" + elements.to_bytes(8, "little")

    def change(data: bytes) -> bytes:
        assert number in data
        return data.replace(number, other)

    return change


def compressed(path: Path) -> None:
    """A checkpoint that is a thousand times larger when it is unpacked."""
    torch.save(content() | {"zeros": torch.zeros(120_000_000, dtype=torch.uint8)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_suffix(".zip"), "w") as small:
        for entry in archive.infolist():
            small.writestr(entry.filename, archive.read(entry), compress_type=zipfile.ZIP_DEFLATED, compresslevel=1)
    path.with_suffix(".zip").replace(path)


def truncated(path: Path) -> None:
    """The first half of a checkpoint."""
    torch.save(content(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """A checkpoint in which one bit of its weights is another one."""
    made = content()
    torch.save(made, path)
    weights, data = made["state_dict"]["network.fc.weight"].numpy().tobytes(), bytearray(path.read_bytes())
    data[data.index(weights) + 3] ^= 1
    path.write_bytes(data)


def two_directories(path: Path) -> None:
    """An archive whose end names another directory to torch than to zipfile: that of a second archive before it."""
    torch.save(content(), path)
    first = path.read_bytes()
    torch.save(content() | {"zeros": torch.zeros(1000)}, path)
    second, place = path.read_bytes(), struct.unpack("<4sLQL", first[-42:-22])[2]
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    path.write_bytes(first + second[:-42] + locator + second[-22:])


def pickle_before(path: Path) -> None:
    """A pickle of torch's older form, and after it an archive that is right."""
    torch.save(content(), path)
    right = path.read_bytes()
    torch.save(content() | {"zeros": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + right)


def bare_pickle(path: Path) -> None:
    """No checkpoint at all."""
    path.write_bytes(pickle.dumps(Touch(path.with_name("marker"))))
