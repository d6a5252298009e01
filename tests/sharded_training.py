"""Steps of each optimizer on a network whole and split over two processes: how far they are apart."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from cvcc_zoo.optim.build import OWN


def apart(optimizer: Any, options: dict[str, Any]) -> float | str:
    """The largest difference of parameters after three steps, or why there is none."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    split = copy.deepcopy(whole)
    fully_shard(split, mesh=init_device_mesh("cpu", (2,)))
    images = torch.randn(8, 6)
    for network in (whole, split):
        matrices, vectors = ([p for p in network.parameters() if p.ndim == ndim] for ndim in (2, 1))
        try:
            made = optimizer([{"params": matrices}, {"params": vectors}], lr=0.01, **options)
        except ValueError as error:
            return str(error)
        for _ in range(3):
            made.zero_grad()
            network(images).square().mean().backward()
            made.step()
    pairs = zip(whole.parameters(), split.parameters(), strict=True)
    return max(float((a - b.full_tensor()).detach().abs().max()) for a, b in pairs)  # type: ignore[attr-defined]


def work(rank: int, folder: Path, cases: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """One of the two processes; the first writes what `apart` returns for each case, to `found.json`."""
    store = dist.FileStore(f"{folder}/store", 2)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = [apart(OWN[name], options) for name, options in cases]
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()
