"""Published weights on the Hugging Face Hub: one repository holds one file of tensors, its card, and a README.md.

    push("resnet20.cifar10", "me/resnet20-cifar10")                    # you must be logged in: `hf auth login`
    model = cvcc_zoo.load(pull("me/resnet20-cifar10", revision="..."))  # a commit, so that nobody can change it

What was pulled is checked against its card as all published weights are, and nothing in it can run.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from cvcc_zoo.files.own import write_whole
from cvcc_zoo.weights.card import Card, find_card, folders, read

ENDINGS = (".json", ".safetensors")


def push(name: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload published weights to the repository "owner/name", made if it is not there; returns the commit's address.

    `name` is that of the weights ("resnet20.cifar10") or the path of their card. Raises ValueError where the
    repository already has other weights, ConnectionError without network, and as `cvcc_zoo.weights.card.read` does.
    """
    from huggingface_hub import HfApi  # half a second

    card = _card_path(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(card, Path(temporary), repo_id)
        wanted = {file.name for file in folder.iterdir()}
        api = HfApi(library_name="cvcc_zoo")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            there = {file for file in api.list_repo_files(repo_id) if file.endswith(ENDINGS)}
            if there - wanted:
                raise ValueError(
                    f"{repo_id} already has {', '.join(sorted(there - wanted))}; choose another repository"
                )
            done = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"Upload {card.stem}")
        except _failures() as error:
            raise ConnectionError(
                f"cannot upload {card.stem} to {repo_id}: {_first_line(error)}; log in by `hf auth login`, or write a "
                f"folder by cvcc_zoo.integrations.hub.write_folder({str(card)!r}, ...) and put its files there yourself"
            ) from error
    return str(done.commit_url)


def pull(source: str | Path, *, revision: str | None = None) -> Path:
    """The card of the weights in a repository "owner/name", downloaded once, or in a local folder.

    `revision` is a branch, tag or commit of the repository. Raises ConnectionError, and says what to do, if the
    download fails; ValueError if there is not one card; and as `cvcc_zoo.weights.card.read` does.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        if revision is not None:
            raise ValueError(f"{local} is a folder of this machine and has no revisions; leave revision out")
        return _checked(local)
    from huggingface_hub import snapshot_download  # half a second
    from huggingface_hub.errors import HFValidationError

    try:
        endings = [f"*{ending}" for ending in ENDINGS]
        found = snapshot_download(str(source), revision=revision, allow_patterns=endings, library_name="cvcc_zoo")
    except HFValidationError as error:
        raise ValueError(f"{str(source)!r} is no folder, and no repository like owner/name: {error}") from error
    except _failures() as error:
        raise ConnectionError(
            f"cannot download {source}: {_first_line(error)}; get its .json and .safetensors another way and put the "
            f"files into {folders()[1]}, where cvcc_zoo.create finds them, or give pull their folder"
        ) from error
    return _checked(Path(found))


def write_folder(card_path: Path, folder: Path, repo_id: str = "<owner>/<name>") -> Path:
    """Write what a repository holds into an empty folder, made if it is not there, and return the folder.

    The README.md names `repo_id` as the place to pull from. An earlier writing of the same weights is replaced.
    Raises ValueError if other files lie in it, and as `cvcc_zoo.weights.card.read` does.
    """
    card, _ = read(card_path)
    files = {path.name: path.read_bytes() for path in (card_path, card_path.with_suffix(".safetensors"))}
    files["README.md"] = readme(card, repo_id).encode()
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if path.name not in files)
    if others:
        raise ValueError(f"{folder} has other files ({', '.join(others[:3])}); give an empty folder")
    for name, data in files.items():
        write_whole(folder / name, data)
    return folder


def readme(card: Card, repo_id: str) -> str:
    """The README.md of a repository: what the Hub reads, between lines of dashes, and what people read."""
    tag = card.name.partition(".")[2]
    header: dict[str, Any] = {
        "license": card.license.lower(),  # the Hub's names of licences are in lower case
        "library_name": "cvcc_zoo",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch", "lightning", card.family.lower()],
        "datasets": [tag],
    }
    if "test_accuracy" in card.measured:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": card.tested_on, "type": tag, "split": "test"},
            "metrics": [{"type": "accuracy", "value": card.measured["test_accuracy"], "name": "test accuracy"}],
        }
        header["model-index"] = [{"name": card.name, "results": [result]}]
    size, channels = card.hparams["image_size"], card.hparams["in_channels"]
    numbers = {key: value for key, value in card.measured.items() if isinstance(value, int | float | str)}
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in numbers.items())
    return f"""---
{_yaml(header)}---

# {card.name}

A {card.family} for {size}x{size} images of {channels} channels, trained on {card.dataset}:
{card.parameters:,} parameters, {card.macs:,} multiply-accumulate operations for an image.

```python
import cvcc_zoo
from cvcc_zoo.integrations.hub import pull

model = cvcc_zoo.load(pull("{repo_id}"))
probabilities = model(images).softmax(1)  # images (N, {channels}, {size}, {size}), uint8 0..255 or float 0..1
```

The whitening is inside the model: it takes raw images. The classes, in the order of the logits:
{", ".join(card.classes)}.

## Measured

From the file `{card.name}.safetensors` ({card.size:,} bytes, sha256 `{card.sha256}`):

| | |
|---|---|
{rows}

## Training

```yaml
{_yaml(card.training)}```
"""


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _card_path(name: str | Path) -> Path:
    given = Path(name).expanduser()
    return given if given.suffix == ".json" else find_card(str(name))


def _checked(folder: Path) -> Path:
    """The only card in a folder, after its file was checked."""
    cards = sorted(folder.glob("*.json"))
    if len(cards) != 1:
        names = ", ".join(card.name for card in cards) or "none"
        raise ValueError(f"there should be one card in {folder}, and there is {names}; load a card by its path")
    read(cards[0])
    return cards[0]


def _failures() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when the network, the repository or the permission is missing."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)  # among these is the HTTPError of its HTTP library, whichever it is


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
