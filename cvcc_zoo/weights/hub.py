"""Published weights in repositories of the Hugging Face Hub, downloaded once and checked against their card."""

from pathlib import Path

from cvcc_zoo.files.own import expanded, home
from cvcc_zoo.printing import first_line
from cvcc_zoo.weights.card import read

ENDINGS = (".json", ".safetensors")
SCHEME = "hf://"


def pull(source: str | Path, *, revision: str | None = None) -> Path:
    """Return the path of the card in a repository "owner/name", downloaded once, or in a local folder.

    `revision` is a branch, tag or commit of the repository; "hf://owner/name@revision" is another way to give it.
    Raises ConnectionError, and says what to do, if the download fails; ValueError unless there is exactly one card; and
    as `cvcc_zoo.weights.card.read` does.
    """
    if str(source).startswith(SCHEME):
        source, _, named = str(source).removeprefix(SCHEME).partition("@")
        revision = revision or named or None
    elif (local := expanded(source)).is_dir():
        if revision is not None:
            raise ValueError(f"{local} is a folder on this machine and has no revisions; leave revision out")
        return _checked(local)
    from huggingface_hub import snapshot_download  # half a second
    from huggingface_hub.errors import HFValidationError

    try:
        endings = [f"*{ending}" for ending in ENDINGS]
        found = snapshot_download(str(source), revision=revision, allow_patterns=endings, library_name="cvcc_zoo")
    except HFValidationError as error:
        raise ValueError(f"{str(source)!r} is neither a folder nor a repository like owner/name: {error}") from error
    except failures() as error:
        raise ConnectionError(
            f"cannot download {source}: {first_line(error)}; get its .json and .safetensors another way and put the "
            f"files into {home('CVCC_ZOO_HOME')}, where cvcc_zoo.create finds them, or give pull their folder"
        ) from error
    return _checked(Path(found))


def _checked(folder: Path) -> Path:
    """Return the only card in a folder, after checking its file."""
    cards = sorted(folder.glob("*.json"))
    if len(cards) != 1:
        names = ", ".join(card.name for card in cards) or "none"
        raise ValueError(f"there should be one card in {folder}, but found {names}; load a card by its path")
    read(cards[0])
    return cards[0]


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of huggingface_hub for a missing network, repository or permission."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)  # the bases include the HTTPError of its HTTP library, whichever it is
