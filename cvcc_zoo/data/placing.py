"""Where the files of a torchvision data set must lie, for folders that hold them in another place."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from torchvision.datasets.utils import check_integrity

from cvcc_zoo.files.own import in_command, shown


def check_placed(title: str, root: Path, folder: str, sums: Mapping[str, str]) -> None:
    """Raise ValueError if the root has files of a data set, but not in the folder below it from which they are read.

    `sums` are the MD5 sums of the files by their paths below this folder; files may also be there unpacked, without
    their ending .gz. Downloading would bring a second copy of what is there.
    """
    known: dict[PurePosixPath, str | None] = {PurePosixPath(folder, name): md5 for name, md5 in sums.items()}
    known |= {path.with_suffix(""): None for path in known if path.suffix == ".gz"}
    if any((root / path).is_file() for path in known):
        return
    for path, md5 in known.items():
        for depth in range(1, len(path.parts)):
            found = root.joinpath(*path.parts[depth:])
            if found.is_file() and (advice := _advice(root, path, depth, found, md5)):
                raise ValueError(f"{title}: {shown(found)} is in the wrong folder; {advice}")


def _advice(root: Path, path: PurePosixPath, depth: int, found: Path, md5: str | None) -> str:
    """Return what to do about a root that is `depth` folders too deep, or has files beside the folder for them.

    Returns "" for another file that only has the same name: CIFAR-100 has files that are called train and test.
    """
    full = root.resolve()
    if full.parts[-depth:] == path.parts[:depth]:
        return f"the root is the folder above: --data.root={in_command(full.parents[depth - 1])}"
    if not check_integrity(found, md5):
        return ""
    return (
        f"the files are read from {shown(root / path.parent)}: put them there, or into {path.parent} in another "
        "folder, and give that one as --data.root"
    )
