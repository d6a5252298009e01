"""Time of a step of every optimizer on each of its paths and against torch's: `python -m benchmarks.optim`.

The parameters are those of ResNet-18 (few large tensors) and ResNet-110 (335 small ones); sides take turns in one run.
torch and timm run Muon's Newton-Schulz steps in bfloat16, which a CPU without such a unit emulates;
`ONEDNN_MAX_CPU_ISA=AVX2` shows how a CPU without one does.
"""

import argparse
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.measure import copy_gbytes, gemm_gflops, machine, markdown
from cvcc_zoo.optim import Muon, newton_schulz
from cvcc_zoo.optim.build import find_optimizer, make_optimizer
from cvcc_zoo.optim.cost import EXAMPLES, seconds_a_step, sides, with_gradients
from cvcc_zoo.optim.param_groups import param_groups
from cvcc_zoo.timing import alternate
from cvcc_zoo.zoo.creation import create

MODELS = ("resnet18", "resnet110")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD, momentum": ("SGD", {"momentum": 0.9}),
    "SGD, Nesterov, decay": ("SGD", EXAMPLES["SGD"]),
    "Adagrad": ("Adagrad", {}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop, decay": ("RMSprop", {"weight_decay": 1e-4}),
    "RMSprop, momentum": ("RMSprop", {"momentum": 0.9}),
    "Adam": ("Adam", {}),
    "AdamW": ("AdamW", {}),
    "Adafactor": ("Adafactor", {}),
    "LowRankAdam": ("LowRankAdam", {}),
}
TORCH = ("torch loop", "torch foreach", "torch fused")


def times(made: dict[str, Optimizer], repeats: int) -> dict[str, float]:
    """Seconds a step of each, after one that is not timed."""
    for optimizer in made.values():
        optimizer.step()
    return alternate({side: partial(seconds_a_step, optimizer) for side, optimizer in made.items()}, repeats)


def compare(model: str, repeats: int) -> list[list[str]]:
    """A row for each case but Muon."""
    network, rows = create(model).network, []
    for title, (name, options) in CASES.items():
        took = times({side: make() for side, make in sides(name, options, network).items()}, repeats)
        others = [took[side] for side in TORCH if side in took]
        shown = [f"{1e3 * took[side]:.1f}" if side in took else "" for side in ("cvcc_zoo", *TORCH)]
        ratios = (
            [f"{took['cvcc_zoo'] / min(others):.2f}", f"{others[0] / took['cvcc_zoo']:.1f}x"] if others else ["", ""]
        )
        rows.append([f"{title}, {model}", *shown, *ratios])
    return rows


def compare_paths(model: str, repeats: int) -> list[list[str]]:
    """Return a row for each of our optimizers: its paths as multiples of the loop's time."""
    network, rows = create(model).network, []
    for name, options in EXAMPLES.items():
        ways = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "default": {}}
        if "fused" in inspect.signature(find_optimizer(name)).parameters:
            ways["fused"] = {"fused": True}
        specs = {way: {"name": name, **options, **more} for way, more in ways.items()}
        took = times({way: make_optimizer(spec, with_gradients(network)) for way, spec in specs.items()}, repeats)
        shown = [f"{took['loop'] / took[way]:.2f}" if way in took else "" for way in ("foreach", "fused", "default")]
        rows.append([f"{name}, {model}", f"{1e3 * took['loop']:.1f}", *shown])
    return rows


class PlainMuon(Muon):
    """Ours without the Gram matrix: the iteration as it is written, in float32, one matrix after the other."""

    def update_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """One step, with the Gram matrix out of the way."""
        with mock.patch.object(newton_schulz, "by_gram", newton_schulz.step_by_step):
            super().update_group({**group, "foreach": False}, params, grads)


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The weights that Muon steps, with gradients, on a copy of the model."""
    return [group for group in param_groups(with_gradients(model), 0.0, muon=True) if group["use_muon"]]


def compare_muon(model: str, repeats: int) -> tuple[list[list[str]], float]:
    """A row for each other Muon, and how far ours is from the plain iteration."""
    network = create(model).network
    timm: Callable[..., Optimizer] = find_optimizer("timm.muon")
    made: dict[str, Optimizer] = {
        "cvcc_zoo": Muon(muon_groups(network)),
        "float32, step by step": PlainMuon(muon_groups(network)),
        "torch": sides("Muon", {}, network)["torch loop"](),
        "timm": timm([p for group in muon_groups(network) for p in group["params"]], lr=0.02),
    }
    took = times(made, repeats)
    ours = took["cvcc_zoo"]
    pair = [muon_groups(network) for _ in range(2)]
    start = [p.detach().clone() for p in pair[0][0]["params"]]
    for kind, groups in zip((Muon, PlainMuon), pair, strict=True):
        kind(groups, lr=1.0).step()
    updates = [[p - s for p, s in zip(groups[0]["params"], start, strict=True)] for groups in pair]
    error = max(float((a - b).detach().abs().max()) for a, b in zip(*updates, strict=True))
    rows = [
        [f"against {side}, {model}", f"{1e3 * ours:.1f}", f"{1e3 * other:.1f}", f"{other / ours:.1f}x"]
        for side, other in took.items()
        if side != "cvcc_zoo"
    ]
    return rows, error


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("rules", "paths", "muon"))
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    half = gemm_gflops(dtype=torch.bfloat16, size=512)  # emulated, larger ones would take minutes
    print(f"{machine()}; float32 products {gemm_gflops():.0f} GFLOP/s, copies {copy_gbytes():.0f} GB/s;")
    print(f"bfloat16 products {half:.2g} GFLOP/s\n")
    rows: list[list[str]] = []
    for model in options.models if options.only in (None, "rules") else ():
        rows += compare(model, options.repeats)
    if rows:
        header = ["ms a step", "cvcc_zoo", *TORCH, "of the fastest (at most 1.1)", "against torch's default"]
        print(markdown(header, rows), "\n")
    rows = []
    for model in options.models if options.only in (None, "paths") else ():
        rows += compare_paths(model, options.repeats)
    if rows:
        print(markdown(["", "loop, ms a step", "foreach, times as fast", "fused", "default"], rows), "\n")
    rows = []
    for model in options.models if options.only in (None, "muon") else ():
        more, error = compare_muon(model, max(1, options.repeats // 2))
        rows += more
        print(f"{model}: largest difference from step by step {error:.0e}")
    if rows:
        print("\n" + markdown(["Muon, ms a step", "cvcc_zoo", "the other", "ratio"], rows))


if __name__ == "__main__":
    main()
