"""Pretrained weights of timm from files on this machine; nothing is downloaded."""

import json
import reprlib
from argparse import Namespace
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cvcc_zoo.files.own import expanded
from cvcc_zoo.files.plain import load_plain

Normalisation = dict[str, Tensor]
"""`mean` and `std` of each channel, in units of pixels in [0, 1]."""
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".tar")
IN_FOLDER = ("model.safetensors", "pytorch_model.bin", "model_best.pth.tar")
"""Names of the weights in a folder of the Hugging Face Hub, of timm's `save_for_hf` or of its training script."""
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which timm's training script and others save the tensors, in the order of timm's own choice."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""What wrappers put before all names: DistributedDataParallel, torch.compile, and the usual LightningModules."""


def weights_file(name: str, pretrained: bool | str) -> Path:
    """Return the file of a network's weights: the given one, or for True that in a cache of this machine.

    Raises FileNotFoundError, and says where to get it and where to put it, if there is none; ValueError for what is not
    a path.
    """
    if not isinstance(pretrained, bool):
        if not isinstance(pretrained, str | PathLike) or not str(pretrained):
            raise ValueError(f"pretrained is True, False or the path of a file of weights, not {pretrained!r}")
        path = expanded(pretrained)
        if path.is_dir():
            path /= next((each for each in IN_FOLDER if (path / each).is_file()), IN_FOLDER[0])
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file of weights {path}; correct the path, or choose pretrained=True "
                "(--model.pretrained=true), which finds timm's file, or says where to get it"
            )
        if path.suffix not in ENDINGS:
            raise ValueError(f"{path} is not a file of weights: its name must end in {', '.join(ENDINGS)}")
        return path
    import timm  # takes a second

    config: Any = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if repository and repository.endswith("/"):
        repository += name if "." in name or not config.tag else f"{name}.{config.tag}"
    if repository and (found := _in_hub_cache(repository)):
        return found
    url = getattr(config, "url", None)
    if url and (there := Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
        return there
    if repository:
        where = f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
    elif url:
        where = url
    else:
        raise FileNotFoundError(f"timm has no weights of {name}; leave pretrained out, or give a file of your own")
    raise FileNotFoundError(
        f"the weights of timm.{name} are not on this machine, and nothing is downloaded: get {where} and give its "
        "path, pretrained='model.safetensors' (--model.pretrained=...)"
        + (f", or fill the cache once with `hf download {repository} model.safetensors`" if repository else "")
    )


def _in_hub_cache(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # timm needs it, too

    for file in IN_FOLDER[:2]:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def pretrained_options(name: str, path: Path) -> dict[str, Any]:
    """Return the options of timm.create_model that build a network with the weights of a file and its classifier.

    timm then adapts them: to other channels, and to the image size and the patches of a transformer. Mean and std are
    those of the training script's options in the file, of the config.json beside it, or else of timm for this name.
    """
    import timm  # takes a second

    config, content = timm.get_pretrained_cfg(name), _read(path)
    state, args = state_in(content, path), content.get("args")
    told = _config_beside(path, name) | (_inputs(vars(args), path) if isinstance(args, Namespace) else {})
    classifiers = getattr(config, "classifier", None)
    first = classifiers[0] if isinstance(classifiers, tuple | list) else classifiers
    weight = state.get(f"{first}.weight")
    classes = 0 if weight is None else len(weight) - (getattr(config, "label_offset", None) or 0)
    overlay = {**told, "state_dict": state, "num_classes": classes}
    return {"pretrained": True, "num_classes": classes, "pretrained_cfg_overlay": overlay}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state_dict: safetensors, or a file of torch with plain tensors. Raises ValueError for anything else."""
    return state_in(_read(path), path)


def state_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state_dict in a file: the file itself, the first of WRAPPERS, or the only one under another key.

    PREFIXES before all of its names are left out, and so is the counter of AveragedModel. Raises ValueError for none or
    several.
    """
    inside = content if isinstance(content, Mapping) else {}
    known = [inside[key] for key in WRAPPERS if _is_state(inside.get(key))]
    found = [content] if _is_state(content) else known[:1] or [each for each in inside.values() if _is_state(each)]
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} state_dicts; save one alone: torch.save(net.state_dict(), ...)")
    tensors = {name: tensor for name, tensor in found[0].items() if name != "n_averaged"}
    while tensors and (before := [each for each in PREFIXES if all(name.startswith(each) for name in tensors)]):
        tensors = {name.removeprefix(before[0]): tensor for name, tensor in tensors.items()}
    return tensors


def _is_state(content: Any) -> bool:
    filled = isinstance(content, Mapping) and len(content) > 0
    return filled and all(isinstance(key, str) and isinstance(each, Tensor) for key, each in content.items())


def _config_beside(path: Path, name: str) -> dict[str, Any]:
    """Return what timm's config.json in the folder of the weights says of their images; {} if there is none.

    Raises ValueError for one that is damaged or of another network.
    """
    file = path.with_name("config.json")
    try:
        content = json.loads(file.read_text()) if file.is_file() else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}); get it again, or remove it") from error
    if not isinstance(content, dict) or "architecture" not in content:
        return {}
    if (other := content["architecture"]) != name.partition(".")[0]:
        raise ValueError(f"{file} is of timm.{other}, not of timm.{name}; choose timm.{other}, or move the weights")
    return _inputs(content.get("pretrained_cfg", content), file)


def _inputs(config: Any, file: Path) -> dict[str, Any]:
    """Return `mean`, `std` and `input_size` of a config, if it has them. Raises ValueError for impossible values."""
    found = {}
    for key in ("mean", "std", "input_size"):
        values = config.get(key) if isinstance(config, Mapping) else None
        if values is None:
            continue
        numbers = isinstance(values, list | tuple) and all(isinstance(each, int | float) for each in values)
        if not (numbers and values and (min(values) > 0 or (key == "mean" and min(values) == 0))):
            raise ValueError(f"{file} has an impossible {key}, {reprlib.repr(values)}; correct it there")
        found[key] = tuple(values)
    return found


def _read(path: Path) -> Any:
    return _safe(path) if path.suffix == ".safetensors" else load_plain(path, old=True)


def _safe(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors has an error of its own
        raise ValueError(f"{path} has no readable tensors ({error}); get it again") from error


def normalisation_of(config: Mapping[str, Any], in_channels: int) -> Normalisation:
    """Return the mean and the standard deviation that weights expect of their images, from timm's config of them.

    For one channel they are the averages over the three colours; more channels repeat them in turn.
    """
    found = {}
    for name in ("mean", "std"):
        values = torch.tensor(config[name], dtype=torch.float32)
        found[name] = values.mean()[None] if in_channels == 1 else values[torch.arange(in_channels) % len(values)]
    return found
