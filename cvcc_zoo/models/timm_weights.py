"""Pretrained weights of timm from files on this machine; nothing is downloaded."""

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
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which timm's training script and others save the tensors, in the order of timm's own choice."""


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
            path = path / "model.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file of weights {path}; correct the path, or choose pretrained=True "
                "(--model.pretrained=true), which finds timm's file, or says where to get it"
            )
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

    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def pretrained_options(name: str, path: Path) -> dict[str, Any]:
    """Return the options of timm.create_model that build a network with the weights of a file and its classifier.

    timm then adapts them: to other channels, and to the image size and the patches of a transformer.
    """
    import timm  # takes a second

    config, state = timm.get_pretrained_cfg(name), read_tensors(path)
    classifiers = getattr(config, "classifier", None)
    first = classifiers[0] if isinstance(classifiers, tuple | list) else classifiers
    weight = state.get(f"{first}.weight")
    classes = 0 if weight is None else len(weight) - (getattr(config, "label_offset", None) or 0)
    overlay = {"state_dict": state, "num_classes": classes}
    return {"pretrained": True, "num_classes": classes, "pretrained_cfg_overlay": overlay}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state_dict: safetensors, or a file of torch with plain tensors. Raises ValueError for anything else.

    The prefixes that DistributedDataParallel and torch.compile add to the names are left out.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} is not a file of weights: its name must end in {', '.join(ENDINGS)}")
    content: Any = _safe(path) if path.suffix == ".safetensors" else load_plain(path, old=True)
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(each, Tensor) for each in content.values()):
        raise ValueError(f"{path} has no state_dict: tensors by name; give a file of weights")
    from timm.models import clean_state_dict  # takes a second

    tensors: dict[str, Tensor] = clean_state_dict({str(name): tensor for name, tensor in content.items()})
    return tensors


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
