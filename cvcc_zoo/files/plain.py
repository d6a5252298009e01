"""Read untrusted files as plain data of bounded size: no code in them runs, and no module is imported for them."""

import pickletools
import re
import reprlib
import struct
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from torch import Tensor

from cvcc_zoo.printing import first_line

LARGEST_PICKLE = 16 << 20  # bytes of a checkpoint besides its tensors; resnet110 with an optimizer has 0.2 MB
MOST_OPERATIONS = 200_000  # of that pickle; resnet20 with an optimizer has 10,000
OPERATIONS_OF_TENSOR = 60  # of a file with more tensors than that allows; torch.save writes 30 to 45 for each
LONGEST_TEXT = 10_000  # characters
LONGEST_CONFIG = 100_000  # characters of a run's config, which has about 3,000
MOST_VALUES = 10_000  # in hyperparameters
DEEPEST = 10
CALLS = ("class_path", "init_args", "dict_kwargs")
"""Keys that make other libraries import and call what a file names, as keys that begin with an underscore also do."""

OPENING = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken,
           yaml.BlockMappingStartToken)  # fmt: skip
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)

NEEDED = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
          "torch.serialization _get_layout", "torch Size", "torch device", "collections OrderedDict",
          "collections Counter", "builtins set", "__builtin__ set", "argparse Namespace", "NEWOBJ")  # fmt: skip
"""Names that torch writes for tensors, sets, MultiStepLR and the options of timm's train.py; all else has no name."""
ARCHIVE = b"PK"  # the first bytes of a zip file
OLD_PICKLES = 5  # before torch 1.6: magic number, version, machine, content, and the names of the storages that follow


def check_plain(value: Any, what: str) -> None:
    """Raise ValueError unless a value consists of numbers, text, None, lists, tuples and dicts with text as keys.

    It must not name something to be called (`class_path`, `_instantiator`), nor be large or deeply nested. `what`, a
    plural, begins the message.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"{what} are not options: more than {MOST_VALUES:,} values, or {DEEPEST} levels deep")
        if isinstance(item, dict):
            for key, named in item.items():
                if not isinstance(key, str):
                    raise ValueError(f"{what} are not plain data: the key {reprlib.repr(key)} is not text")
                if key in CALLS or (key.startswith("_") and not isinstance(named, int | float)):  # numbers are safe
                    raise ValueError(
                        f"{what} have {reprlib.repr(key)}: {reprlib.repr(named)}, which could run code and was "
                        "ignored. Get another file; if it is your own, write {name: ..., option: value} instead"
                    )
            waiting += [(each, depth + 1) for pair in item.items() for each in pair]
        elif isinstance(item, list | tuple):
            waiting += [(each, depth + 1) for each in item]
        elif type(item) not in (str, int, float, bool, type(None)):
            raise ValueError(f"{what} are not plain data: they have an object of type {type(item).__name__}")
        elif isinstance(item, str) and len(item) > LONGEST_TEXT:
            raise ValueError(f"{what} are not options: a text of {len(item):,} characters, {reprlib.repr(item)}")
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            raise ValueError(f"{what} are not options: a number of {item.bit_length()} bits")


def load_plain(path: Path, *, old: bool = False) -> Any:
    """Read what torch.save wrote. Raises ValueError, with the path, unless it is plain data and tensors.

    The names in the file are checked before anything is built. Memory is at most a small multiple of the file's size:
    nothing may be compressed, no tensor may have more elements than the file stores, and each part must match the
    checksum that torch.save wrote with it. With `old` the format of torch before 1.6 is read too, which has no
    checksums and whose sizes are not checked.
    """
    with path.open("rb") as file:  # check and read one open file, even if another file gets its name meanwhile
        older = old and file.read(len(ARCHIVE)) != ARCHIVE
        (_check_old if older else _check_archive)(path, file)
        file.seek(0)
        try:
            with torch.serialization.safe_globals([Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's reader passes on errors of all kinds
            raise ValueError(f"{path} cannot be read as a checkpoint of plain data: {first_line(error)}") from error
    for tensor in _tensors(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path} cannot be read as a checkpoint: a tensor in it claims the shape {tuple(tensor.shape)}, but "
                "the file stores less data than that; get it again"
            )
    return content


def refused_in(written: BinaryIO) -> str | None:
    """Return what `load_plain` would refuse in what torch.save has written, besides damage, or None."""
    with zipfile.ZipFile(written) as archive:
        entries = archive.infolist()
        pickles = [archive.read(entry) for entry in entries if entry.filename.endswith(".pkl")]
    if sum(map(len, pickles)) > LARGEST_PICKLE:
        return f"over {LARGEST_PICKLE:,} bytes besides tensors"
    try:
        names = [name for pickle in pickles for name in _names(pickle, len(entries))]
    except ValueError as error:
        return str(error)
    return next((name.replace(" ", ".") for name in names if name not in NEEDED and not _of_torch(name)), None)


def _or_another(path: Path) -> str:
    """Return advice for a message that names the other checkpoints in the same folder; "" if there are none."""
    found = sorted(other.name for other in path.parent.glob("*.ckpt") if other.name != path.name)
    return f", or replace it by one of the others in its folder ({', '.join(found)})" if found else ""


def _check_archive(path: Path, file: BinaryIO) -> None:
    """Raise ValueError unless a file is an undamaged, uncompressed archive that names only parts of tensors."""
    refused = f"{path} cannot be read as a checkpoint of plain data"
    try:
        with zipfile.ZipFile(file) as archive:
            _check_ends(file, archive.start_dir)
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            large = packed or sum(entry.file_size for entry in entries) > file.seek(0, 2)
            long = sum(entry.file_size for entry in pickles) > LARGEST_PICKLE
            damaged = None if large or long else archive.testzip()
            read = [] if large or long or damaged else [archive.read(pickle) for pickle in pickles]
            names = {name: None for pickle in read for name in _names(pickle, len(entries))}
    except Exception as error:  # zipfile and pickletools pass on errors of all kinds
        raise ValueError(
            f"{refused}: torch.save did not write it, or not completely ({error}); get it again{_or_another(path)}"
        ) from error
    if large:
        raise ValueError(f"{refused}: it is larger when unpacked, which our checkpoints never are; nothing was read")
    if long or len(pickles) != 1:
        raise ValueError(f"{refused}: besides tensors it has {len(pickles)} parts or over {LARGEST_PICKLE:,} bytes")
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: {damaged} in it does not match the checksum that was written with it; get it again"
            f"{_or_another(path)}"
        )
    _check_names(names, refused)


def _check_old(path: Path, file: BinaryIO) -> None:
    """Raise ValueError unless a file of torch before 1.6, pickles and then numbers, names only parts of tensors.

    The sizes of its tensors are not checked: torch allocates them, but memory is only used when the numbers are read.
    """
    refused = f"{path} cannot be read as a checkpoint of plain data"
    file.seek(0)
    try:
        names = {name: None for _ in range(OLD_PICKLES) for name in _names(file)}
        long = file.tell() > LARGEST_PICKLE
    except Exception as error:  # pickletools passes on errors of all kinds
        raise ValueError(
            f"{refused}: torch.save did not write it, or not completely ({error}); get it again{_or_another(path)}"
        ) from error
    if long:
        raise ValueError(f"{refused}: besides tensors it has over {LARGEST_PICKLE:,} bytes")
    _check_names(names, refused)


def _check_names(names: Iterable[str], refused: str) -> None:
    for name in names:
        if name not in NEEDED and not _of_torch(name):
            raise ValueError(
                f"{refused}: it names {name.replace(' ', '.')[:100]!r}, which plain data does not need; "
                "nothing in it was run. Get the weights from somebody you trust, ideally as .safetensors with a card"
            )


def _check_ends(file: BinaryIO, directory: int) -> None:
    """Raise ValueError unless an archive fills its file, from the first byte to the record at its end.

    Otherwise zipfile, which checks the file, and torch, which reads it, could use different directories in it.
    """
    start = file.seek(0) or file.read(4)
    end = file.seek(-22, 2)
    _, _, _, _, _, size, offset, comment = struct.unpack("<4s4H2LH", file.read(22))
    file.seek(end - 20)
    kind, _, place, _ = struct.unpack("<4sLQL", file.read(20))
    if kind == b"PK\x06\x07":  # the locator of the end record in 64 bits
        end = end - 20 - 56
        file.seek(end)
        *_, size, offset = struct.unpack("<4sQ2H2L4Q", file.read(56))
        if place != end:
            raise ValueError("it has two end records that do not agree")
    if start != b"PK\x03\x04" or comment or (offset, offset + size) != (directory, end):
        raise ValueError("the file contains more than one archive")


def read_yaml(text: Any, what: str) -> Any:
    """Read untrusted YAML as plain data. Raises ValueError, whose message `what` begins, for anything else.

    It must not be longer than LONGEST_CONFIG or deeply nested, because reading it could take minutes. Aliases are
    refused, because a few of them, each made of the one before, can expand to any size.
    """
    if not isinstance(text, str) or len(text) > LONGEST_CONFIG:
        raise ValueError(f"{what} is not a text of up to {LONGEST_CONFIG:,} characters; get the file again")
    try:
        depth = 0
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):
                raise ValueError(f"{what} contains YAML aliases (*), which no run writes")
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if depth > 2 * DEEPEST:
                raise ValueError(f"{what} is more than {2 * DEEPEST} levels deep, which no config of a run is")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{what} is not valid YAML: {first_line(error)}") from error


def _names(content: bytes | BinaryIO, tensors: int = 0) -> Iterator[str]:
    """Yield the names that the instructions of a pickle look up. Raises ValueError for too many for these tensors."""
    most = max(MOST_OPERATIONS, OPERATIONS_OF_TENSOR * tensors)
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if number == most:
            raise ValueError(f"more than {most:,} instructions besides its tensors")
        if operation.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif operation.name in ("STACK_GLOBAL", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ", "NEWOBJ_EX"):
            yield operation.name


def _of_torch(name: str) -> bool:
    """Return True for a storage or a dtype of torch, such as `torch FloatStorage` or `torch float32`."""
    module, _, found = name.partition(" ")
    if re.fullmatch(r"(?!Untyped|Typed)[A-Z][A-Za-z0-9]*Storage", found):
        return module in ("torch", "torch.cuda")  # older versions have the storages of GPUs in torch.cuda
    return module == "torch" and isinstance(vars(torch).get(found), torch.dtype)


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested lists and dicts; each container is visited once, however often others contain it."""
    waiting, seen = [content], set()
    while waiting:
        item = waiting.pop()
        item = vars(item) if isinstance(item, Namespace) else item
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict | list | tuple | set) and id(item) not in seen:
            seen.add(id(item))
            waiting += [*item.keys(), *item.values()] if isinstance(item, dict) else item
