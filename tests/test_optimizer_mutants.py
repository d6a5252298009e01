"""The checks have teeth: each of these faults, planted in a copy of the optimizers, is caught by one of them."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import cvcc_zoo.optim
from tests.optimizer_checks import CHECKS, VARIANTS, Subject
from tests.test_optimizer_nonfinite import poisons_one_parameter
from tests.test_optimizer_parity import DATABASE, FILTERS, MATRICES, difference, inputs
from tests.test_optimizer_rules import follows_its_definition

pytestmark = pytest.mark.slow

FAULTS = [  # optimizer, file, what stands there, what is planted instead
    ("SGD", "sgd", "alpha=1.0 if first else 1 - dampening", "alpha=1 - dampening"),
    ("SGD", "sgd", "g.add(b, alpha=momentum) if group[\"nesterov\"] else b", "b"),
    ("SGD", "sgd", "g = g.add(w, alpha=weight_decay)", "g = g.add_(w, alpha=weight_decay)"),
    ("SGD", "sgd", "g = g.add(w, alpha=weight_decay)", "g = g.add(w, alpha=2 * weight_decay)"),
    ("SGD", "sgd", "if zeros and not first else", "if zeros else"),
    ("Adagrad", "adagrad", "(step - 1) * lr_decay", "step * lr_decay"),
    ("Adagrad", "adagrad", "s.addcmul_(g, g)", "s.copy_(g * g)"),
    ("RMSprop", "rmsprop", "variance.sqrt().add_(eps)", "(variance + eps).sqrt()"),
    ("RMSprop", "rmsprop", "value=-1)", "value=1)"),
    ("RMSprop", "rmsprop", "b.mul_(momentum).addcdiv_(g, root)", "b.lerp_(g / root, 1 - momentum)"),
    ("Adam", "adam", "1 - beta2**step", "1 - beta1**step"),
    ("Adam", "adam", "lr / (1 - beta1**step), m", "lr, m"),
    ("Adam", "adam", ".add_(group[\"eps\"])", ""),
    ("Adam", "adam", "m.lerp_(g, 1 - beta1)", "m.mul_(beta1).add_(g)"),
    ("Adam", "adam", "largest.maximum(v)", "v"),
    ("AdamW", "adam", "if self.decoupled:", "if not self.decoupled:"),
    ("AdamW", "adam", "w.mul_(1 - group[\"lr\"] * group[\"weight_decay\"])", "w.mul_(1 - group[\"weight_decay\"])"),
    ("Adam", "tensors", "w.sub_(top * factor if bottom is None else top / bottom * factor)",
     "w.sub_(top if bottom is None else top / bottom)"),
    ("Muon", "muon", "for n in directions[0].shape)", "for n in params[0].shape[:2])"),
    ("Muon", "muon", "b.lerp_(g, 1 - momentum)", "b.lerp_(g, momentum)"),
    ("Muon", "muon", "(as_matrix(p).shape, p.dtype, p.device)", "p.ndim"),
    ("Muon", "muon", "-g if group[\"maximize\"] else g", "g"),
    ("Muon", "muon", "group[\"lr\"] = group[\"bias_lr\"] if vectors else others", "pass"),
    ("Muon", "muon", "else group[\"sgd_lr\"]", "else group[\"adamw_lr\"]"),
    ("Muon", "muon", "\"momentum\": group[\"sgd_momentum\"]", "\"momentum\": group[\"momentum\"]"),
    ("Muon", "muon", "math.sqrt(len(p)) / p.norm()", "1 / p.norm()"),
    ("Muon", "newton_schulz", "y = y / y.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)", "y = y / y.norm()"),
    ("Muon", "newton_schulz", "gram = factor @ gram @ factor", "gram = factor @ gram"),
    ("Muon", "newton_schulz", "return y.mT if tall else y", "return y"),
    ("Adafactor", "adafactor", "lengths / longer", "lengths"),
    ("Adafactor", "adafactor", "g = each(as_matrix, g)", "g = each(lambda g: g.flatten(0, -2), g)"),
    ("Adafactor", "adafactor", "smaller(group[\"lr\"], 1 / step**0.5)", "group[\"lr\"]"),
    ("LowRankAdam", "low_rank_adam", "(step - 1) % group", "step % group"),
    ("LowRankAdam", "low_rank_adam", "group[\"lr\"] * group[\"scale\"]", "group[\"lr\"]"),
    ("LowRankAdam", "low_rank_adam", "if not g.isfinite().all():", "if False:"),
    ("LowRankAdam", "low_rank_adam", ".sign()", ".abs().ceil()"),
    ("LowRankAdam", "low_rank_adam", "None if group.get(\"low_rank\") else", ""),
    ("SGD", "paths", "-g if group[\"maximize\"] else g, kept, step,", "g, kept, step,"),
    ("Adam", "paths", "internals.foreach_add_(steps, 1)", "internals.foreach_add_(steps[:1], 1)"),
    ("Adam", "paths", "(p.device, p.dtype, i in members.new, step)", "(p.device, p.dtype, i in members.new, 1.0)"),
    ("SGD", "paths", "(p.device, p.dtype, i in members.new, step)", "(p.device, p.dtype, False, step)"),
    ("SGD", "paths", "grads = laid_out(members.grads)", "grads = members.grads"),
    ("Adam", "paths", "lists[name] = laid_out(values)", "lists[name] = values"),
    ("SGD", "tensors", "torch.empty_like(p, device=\"meta\").stride() == p.stride()", "True"),
    ("Adam", "loading", "group.setdefault(name, value)", "pass"),
    ("Adam", "loading", "return torch.as_tensor(value, dtype=torch.float32)", "return value"),
    ("Adam", "optimizer", "memory_format=torch.preserve_format", "memory_format=torch.contiguous_format"),
    ("Adagrad", "optimizer", "is not torch.strided", "is None"),
    ("SGD", "optimizer", "self._check({**self.defaults, **param_group})", "pass"),
    ("SGD", "loading", "            refuse_differentiable(type(self).__name__, group)", "            pass"),
    ("SGD", "options", "at_least_zero(options, \"lr\", \"weight_decay\")", "at_least_zero(options, \"lr\")"),
    ("SGD", "optimizer", "with torch.enable_grad():", "with torch.no_grad():"),
]  # fmt: skip


def planted(tmp_path: Path, name: str, file: str, old: str, new: str) -> type[torch.optim.Optimizer]:
    """The optimizer of a copy of the package with one change in one file."""
    package = f"planted_{abs(hash((file, old, new)))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    for source in Path(cvcc_zoo.optim.__file__).parent.glob("*.py"):
        if source.stem in ("__init__", "build"):
            continue
        text = source.read_text()
        if source.stem == file:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
            text = text.replace(old, new)
        (folder / source.name).write_text(text.replace("cvcc_zoo.optim.", f"{package}."))
    modules = {"Adagrad": "adagrad", "RMSprop": "rmsprop", "LowRankAdam": "low_rank_adam", "AdamW": "adam"}
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module(f"{package}.{modules.get(name, name.lower())}")
    finally:
        sys.path.remove(str(tmp_path))
    found: type[torch.optim.Optimizer] = getattr(module, name)
    return found


def equals_torch(subject: Subject) -> None:
    """Over torch's database, as `test_optimizer_parity` has it, with fewer steps."""
    if subject.cls.__name__ in ("Muon", "LowRankAdam"):
        return
    shapes = MATRICES if subject.cls.__name__ == "Adafactor" else FILTERS
    info: Any = DATABASE[subject.cls.__name__].optim_cls
    for options in inputs(subject.cls, "cpu"):
        for foreach in (False, True):
            how = {**options, "foreach": foreach}
            assert difference(lambda p, o=how: subject.cls(p, **o), lambda p, o=how: info(p, **o), shapes, steps=6) == 0  # type: ignore[misc]


def caught_by(cls: type[torch.optim.Optimizer]) -> str | None:
    """The first check that fails."""
    for check in (follows_its_definition, equals_torch, poisons_one_parameter, *CHECKS):
        for options in VARIANTS[cls.__name__]:
            try:
                check(Subject(cls, options))
            except (Exception, pytest.fail.Exception):
                return check.__name__
    return None


def test_without_a_fault_nothing_is_caught(tmp_path: Path) -> None:
    for name in VARIANTS:
        (tmp_path / name).mkdir()
        assert caught_by(planted(tmp_path / name, name, "sgd", "class SGD(", "class SGD(")) is None


@pytest.mark.parametrize(("name", "file", "old", "new"), FAULTS)
def test_a_planted_fault_is_caught(tmp_path: Path, name: str, file: str, old: str, new: str) -> None:
    assert caught_by(planted(tmp_path, name, file, old, new))
