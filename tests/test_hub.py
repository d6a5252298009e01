"""Weights on the Hugging Face Hub and models in torch.hub; the network is not used."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError

from cvcc_zoo import create, load
from cvcc_zoo.cli.expansion import expand_model
from cvcc_zoo.integrations.hub import pull, push, readme, write_folder
from cvcc_zoo.registry import ENTRIES
from cvcc_zoo.weights.card import read_card
from cvcc_zoo.zoo.trained import find_trained
from tests.test_weights import IMAGES, card_of, change, home, published, trained

__all__ = ["home"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def card(home: Path) -> Path:
    return published(home)


# A repository of the Hugging Face Hub


def test_a_folder_holds_the_two_files_and_a_readme(card: Path, tmp_path: Path) -> None:
    folder = write_folder(card, tmp_path / "out")
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "resnet20.pets.json",
        "resnet20.pets.safetensors",
    ]
    assert torch.equal(load(pull(folder))(IMAGES), trained()(IMAGES))
    assert pull(write_folder(card, folder)) == folder / "resnet20.pets.json"  # the same again
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"has other files \(notes.txt\); give an empty folder"):
        write_folder(card, folder)


def test_a_file_that_its_card_downloads_is_in_the_folder(card: Path, tmp_path: Path) -> None:
    file = card.with_suffix(".safetensors")
    data = file.read_bytes()
    away = file.rename(tmp_path / "away.safetensors")
    change(card, url=away.as_uri())
    mine = tmp_path / "mine"
    mine.mkdir()
    mine = card.rename(mine / card.name)
    folder = write_folder(mine, tmp_path / "out")
    assert (folder / file.name).read_bytes() == data and torch.equal(load(pull(folder))(IMAGES), trained()(IMAGES))


def test_the_readme_is_what_the_hub_and_people_read(card: Path, tmp_path: Path) -> None:
    text = (write_folder(card, tmp_path / "out", "me/pets") / "README.md").read_text()
    data: Any = huggingface_hub.ModelCard(text).data
    assert (data.license, data.library_name, data.datasets) == ("mit", "cvcc_zoo", ["pets"])
    assert data.pipeline_tag == "image-classification" and "resnet" in data.tags
    (result,) = data.eval_results
    assert (data.model_name, result.metric_type, result.metric_value) == ("resnet20.pets", "accuracy", 0.5)
    assert (result.dataset_name, result.dataset_type) == ("Pets", "pets")
    assert 'pull("me/pets")' in text and "| test accuracy | 0.5 |" in text and "cat, cow, dog" in text
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe) == {"epochs": 3} and str(tmp_path) not in text


def test_the_data_set_of_a_readme_is_that_of_the_card(card: Path) -> None:
    for name in ("resnet20.pets", "timm.resnet18.pets"):
        header = readme(dataclasses.replace(read_card(card), name=name), "me/x").split("---")[1]
        assert "datasets:\n- pets\n" in header and "type: pets\n" in header


def test_the_example_of_the_readme_runs(card: Path, tmp_path: Path) -> None:
    folder = write_folder(card, tmp_path / "out", str(tmp_path / "out"))
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"images": IMAGES}
    exec(code, names)
    assert torch.equal(names["probabilities"], trained()(IMAGES).softmax(1))


class Hub:
    """What `push` and `pull` call of huggingface_hub, with folders for repositories."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.calls = root, list[str]()
        for name in ("create_repo", "list_repo_files", "upload_folder"):
            monkeypatch.setattr(huggingface_hub.HfApi, name, self._method(getattr(self, name)))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    @staticmethod
    def _method(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda api, *arguments, **options: function(*arguments, **options)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(f"create {repo_id} private={private}")
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def list_repo_files(self, repo_id: str) -> list[str]:
        return [file.name for file in (self.root / repo_id).iterdir()]

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> SimpleNamespace:
        self.calls.append(commit_message)
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str], **_: Any) -> str:
        self.calls.append(f"download {repo_id} {revision} {' '.join(allow_patterns)}")
        snapshot = self.root / "snapshot"  # the real one has links too
        snapshot.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for file in (self.root / repo_id).glob(pattern):
                (snapshot / file.name).unlink(missing_ok=True)
                (snapshot / file.name).symlink_to(file)
        return str(snapshot)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / "hub", monkeypatch)


def test_what_was_pushed_is_pulled(card: Path, hub: Hub) -> None:
    assert push("resnet20.pets", "me/pets", private=True) == "https://huggingface.co/me/pets/commit/1"
    path = pull("me/pets", revision="abc")
    assert hub.calls == [
        "create me/pets private=True",
        "Upload resnet20.pets",
        "download me/pets abc *.json *.safetensors",
    ]
    assert torch.equal(load(path)(IMAGES), trained()(IMAGES))
    assert torch.equal(create("resnet20", pretrained=path)(IMAGES), trained()(IMAGES))
    assert push(card, "me/pets")  # the same weights again


def test_a_repository_is_a_name_wherever_a_model_is_asked_for(card: Path, hub: Hub) -> None:
    push("resnet20.pets", "me/pets")
    expected = trained()(IMAGES)
    for take in (create, load, lambda name: find_trained(name).model):
        assert torch.equal(take("hf://me/pets")(IMAGES), expected)
    assert create("hf://me/pets@abc", num_classes=5)(IMAGES).shape == (len(IMAGES), 5)
    assert hub.calls[-1] == "download me/pets abc *.json *.safetensors"
    model, weights = expand_model("hf://me/pets")
    assert model["class_path"].endswith(".ResNet") and weights is not None
    assert torch.equal(load(weights)(IMAGES), expected)


def test_other_weights_in_the_repository_are_not_mixed_with(card: Path, hub: Hub, home: Path) -> None:
    push(card, "me/pets")
    other = published(home, trained("resnet32"))
    with pytest.raises(ValueError, match=r"me/pets already has resnet20.pets.json, .*; choose another repository"):
        push(other, "me/pets")
    shutil.copy(other, hub.root / "me/pets")
    with pytest.raises(ValueError, match=r"one card in .*, but found resnet20.pets.json, resnet32.pets.json"):
        pull("me/pets")


def test_a_flipped_bit_is_found_on_both_ways(card: Path, hub: Hub) -> None:
    push(card, "me/pets")
    for file in (hub.root / "me/pets/resnet20.pets.safetensors", card.with_suffix(".safetensors")):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    for act in (lambda: pull("me/pets"), lambda: push(card, "me/more"), lambda: pull(hub.root / "me/pets")):
        with pytest.raises(ValueError, match=r"is not the file that its card describes: .* get it again"):
            act()
    assert not (hub.root / "me/more").exists()


HttpError: Any = HfHubHTTPError.__bases__[0]  # of the HTTP library of this huggingface_hub


@pytest.mark.parametrize("error", [HttpError("Name or service not known"), OSError("404 Client Error\nmore")])
def test_without_network_the_message_says_what_to_do(
    card: Path, home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fail)
    first = str(error).splitlines()[0]
    with pytest.raises(ConnectionError, match=f"cannot download me/pets: {first}; .* put the files into {home}"):
        pull("me/pets")
    with pytest.raises(ConnectionError, match=f"cannot upload resnet20.pets to me/pets: {first}; log in with `hf auth"):
        push("resnet20.pets", "me/pets")


def test_wrong_names_are_answered(card: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'./no/such/folder' is neither a folder nor a repository like owner/name"):
        pull("./no/such/folder")
    with pytest.raises(ValueError, match="is a folder on this machine and has no revisions; leave revision out"):
        pull(card.parent, revision="main")
    with pytest.raises(ValueError, match=r"there should be one card in .*, but found none"):
        pull(tmp_path)
    with pytest.raises(ValueError, match=r"no published weight named 'resnet20.pet'; did you mean resnet20.pets"):
        push("resnet20.pet", "me/pets")
    with pytest.raises(FileNotFoundError, match="there is no card"):
        push(tmp_path / "resnet20.pets.json", "me/pets")
    assert card_of(trained()).name == card.stem


# torch.hub

HUB: Any = torch.hub  # it has no types


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub.list and torch.hub.help have no source="local"; this is what they download first."""
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: str(ROOT))


def test_torch_hub_lists_the_models_and_nothing_else(local: None) -> None:
    assert set(HUB.list("owner/name")) == {"create", *ENTRIES}


@pytest.mark.parametrize("name", ["create", *ENTRIES])
def test_torch_hub_has_help_for_each(local: None, name: str) -> None:
    text = HUB.help("owner/name", name)
    assert isinstance(text, str) and "raw images" in text.lower()
    assert name == "create" or f"{ENTRIES[name].parameters:,} parameters" in text


def test_torch_hub_gives_our_models(card: Path) -> None:
    def get(name: str, *arguments: Any, **options: Any) -> Any:
        return HUB.load(str(ROOT), name, *arguments, source="local", **options)

    assert get("resnet32", num_classes=7).num_classes == 7
    expected = trained()(IMAGES)
    for given in ("pets", str(card), True):
        assert torch.equal(get("resnet20", pretrained=given)(IMAGES), expected)
    assert torch.equal(get("create", "resnet20.pets")(IMAGES), expected)
    with pytest.raises(ValueError, match=r"no published weight named 'resnet20.pet'"):
        get("resnet20", pretrained="pet")
    with pytest.raises(ValueError, match="did you mean num_classes"):
        get("resnet20", num_clases=3)
    with pytest.raises(RuntimeError, match="Cannot find callable resnet21"):
        get("resnet21")
