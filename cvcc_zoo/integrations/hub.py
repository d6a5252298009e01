"""Published weights on the Hugging Face Hub: a repository with one file of tensors, its card, and a README.md.

    push("resnet20.cifar10", "me/resnet20-cifar10")                    # you must be logged in: `hf auth login`
    model = cvcc_zoo.load(pull("me/resnet20-cifar10", revision="..."))  # a commit, so that nobody can change it

Pulled weights are checked against their card, like all published weights, and no code in them can run.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from cvcc_zoo.files.own import write_whole
from cvcc_zoo.printing import first_line
from cvcc_zoo.runs.intervals import with_interval
from cvcc_zoo.weights.card import Card, model_and_tag, read_file
from cvcc_zoo.weights.hub import ENDINGS, failures, pull
from cvcc_zoo.zoo.names import resolve_trained

__all__ = ["pull", "push", "readme", "write_folder"]


def push(name: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload published weights to the repository "owner/name", created if needed, and return the URL of the commit.

    `name` is that of the weights ("resnet20.cifar10") or the path of their card. Raises ValueError if the repository
    already has other weights, ConnectionError without network, and the errors of `cvcc_zoo.weights.card.read_file`.
    """
    from huggingface_hub import HfApi  # imported here because it takes half a second

    card = resolve_trained(name).path
    if card is None or card.suffix != ".json":
        raise ValueError(f"{name} has no card; `cvcc-zoo publish` makes one from a run")
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
        except failures() as error:
            raise ConnectionError(
                f"cannot upload {card.stem} to {repo_id}: {first_line(error)}; log in with `hf auth login`, or call "
                f"cvcc_zoo.integrations.hub.write_folder({str(card)!r}, ...) and upload the files yourself"
            ) from error
    return str(done.commit_url)


def write_folder(card_path: Path, folder: Path, repo_id: str = "<owner>/<name>") -> Path:
    """Write the files of a repository into an empty folder, created if needed, and return the folder.

    The README.md names `repo_id` as the repository to pull from. Files of the same weights are replaced. Raises
    ValueError if the folder has other files, and the errors of `cvcc_zoo.weights.card.read_file`.
    """
    card, data = read_file(card_path)
    files = {card_path.name: card_path.read_bytes(), card_path.with_suffix(".safetensors").name: data}
    files["README.md"] = readme(card, repo_id).encode()
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if path.name not in files)
    if others:
        raise ValueError(f"{folder} has other files ({', '.join(others[:3])}); give an empty folder")
    for name, content in files.items():
        write_whole(folder / name, content)
    return folder


def readme(card: Card, repo_id: str) -> str:
    """Return the README.md of a repository: the metadata for the Hub, between lines of dashes, and the text."""
    _, tag = model_and_tag(card.name)
    header: dict[str, Any] = {
        "license": card.license.lower(),  # the Hub writes licences in lower case
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
    if {"correct", "test_images"} <= numbers.keys():
        numbers["test_accuracy"] = with_interval(card.measured["correct"], card.measured["test_images"])
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in numbers.items())
    return f"""---
{_yaml(header)}---

# {card.name}

A {card.family} for {size}x{size} images with {channels} channels, trained on {card.dataset}:
{card.parameters:,} parameters, {card.macs:,} multiply-accumulate operations per image.

```python
import cvcc_zoo
from cvcc_zoo.integrations.hub import pull

model = cvcc_zoo.load(pull("{repo_id}"))
probabilities = model(images).softmax(1)  # images (N, {channels}, {size}, {size}), uint8 0..255 or float 0..1
```

The model contains its whitening, so it takes raw images. The classes, in the order of the logits:
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
