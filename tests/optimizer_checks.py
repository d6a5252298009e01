"""What every optimizer of the package must do: checks that the tests run on them, and on copies with planted faults."""

import copy
import inspect
import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"lr": 0.01},
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.9},
    ],
    "Adagrad": [{"lr": 0.1}, {"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.1, "initial_accumulator_value": 0.1}],
    "RMSprop": [
        {"lr": 0.01},
        {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1},
    ],
    "Adam": [{"lr": 0.01}, {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}, {"lr": 0.01, "amsgrad": True}],
    "AdamW": [{"lr": 0.01}, {"lr": 0.01, "weight_decay": 0.5, "amsgrad": True}],
    "Muon": [
        {"lr": 0.01, "adamw_lr": 0.02},
        {"lr": 0.01, "adamw_lr": 0.03, "nesterov": False, "weight_decay": 0.1, "ns_coefficients": "polar_express"},
        {"lr": 0.01, "adamw_lr": 0.01, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
        {"lr": 0.2, "adamw_lr": 0.01, "bias_lr": 0.04, "unit_norm": True, "weight_decay": 0.1},
        {"lr": 0.01, "sgd_lr": 0.02, "sgd_momentum": 0.8, "bias_lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.01, "sgd_lr": 0.02, "nesterov": False},
    ],
    "Adafactor": [{"lr": 3.0}, {"lr": 0.05, "weight_decay": 0.1, "beta2_decay": -0.5, "d": 1.5}],
    "LowRankAdam": [{"lr": 0.05, "rank": 2, "update_every": 3}, {"lr": 0.05, "rank": 1, "scale": 1.0}],
}
"""Options of each optimizer that the checks try."""

SHAPES = ((5, 7), (3,), (), (6, 4, 3, 3), (5, 7), (8, 3))
STEPS = 8


@dataclass(frozen=True)
class Subject:
    """An optimizer under test with some options."""

    cls: Any
    options: dict[str, Any]

    def takes(self, option: str) -> bool:
        return option in inspect.signature(self.cls).parameters

    @property
    def paths(self) -> list[dict[str, Any]]:
        """The options for each way to run it; without `fused`, the default takes torch's kernel where there is one."""
        return [{"foreach": False}, {"foreach": True}, {"fused": True} if self.takes("fused") else {}]

    @property
    def paths_and_default(self) -> list[dict[str, Any]]:
        """The same, and the default, which takes one of them."""
        return self.paths if {} in self.paths else [*self.paths, {}]

    def build(self, params: Iterable[Tensor], **options: Any) -> Optimizer:
        """The optimizer; for Muon matrices and vectors in a group each."""
        chosen = {**self.options, **options}
        params = list(params)
        if self.cls.__name__ != "Muon":
            made: Optimizer = self.cls(params, **chosen)
            return made
        kinds = [[p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]]
        made = self.cls([{"params": kind, "use_muon": kind is kinds[0]} for kind in kinds if kind], **chosen)
        return made


def parameters(shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def gradients(step: int, params: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]


def train(
    optimizer: Optimizer,
    params: Sequence[Tensor],
    steps: Iterable[int] = range(STEPS),
    missing: Callable[[int, int], bool] = lambda step, index: False,
) -> None:
    """Make steps with gradients that depend on the step alone; `missing` takes some away."""
    for step in steps:
        for index, (p, g) in enumerate(zip(params, gradients(step, params), strict=True)):
            p.grad = None if missing(step, index) else g
        optimizer.step()


def same(first: Sequence[Tensor], second: Sequence[Tensor], tolerance: float = 0.0) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tolerance, atol=tolerance)


def state_tensors(optimizer: Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values()]


def moved(subject: Subject, **options: Any) -> list[Tensor]:
    """The parameters after some steps."""
    params = parameters()
    train(subject.build(params, **options), params)
    return params


# The checks


def bad_values_are_refused_before_anything_changes(subject: Subject) -> None:
    for wrong in ({"lr": -1.0}, {"lr": float("nan")}, {"weight_decay": -1.0}, {"lr": torch.ones(2)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            subject.build(parameters(), **wrong)
        optimizer = subject.build(parameters())
        before = len(optimizer.param_groups)
        with pytest.raises(ValueError, match=next(iter(wrong))):
            optimizer.add_param_group({"params": parameters(), **wrong})
        assert len(optimizer.param_groups) == before
    with pytest.raises((TypeError, ValueError)):
        subject.cls([])


def sparse_gradients_are_refused_before_anything_changes(subject: Subject) -> None:
    sparse = torch.ones(5, 4).double().to_sparse()
    for path in subject.paths_and_default:
        params = parameters(((5, 4), (5, 4)))
        before = copy.deepcopy(params)
        optimizer = subject.build(params, **path)
        params[0].grad, params[1].grad = torch.ones(5, 4).double(), sparse
        with pytest.raises(ValueError, match=r"takes no sparse gradients.*torch\.optim\.SGD, Adagrad or SparseAdam"):
            optimizer.step()
        assert not optimizer.state
        same(params, before)


def it_goes_downhill(subject: Subject) -> None:
    for path in subject.paths:
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(6, 5).double()), nn.Parameter(torch.randn(6).double())]
        x, y = torch.randn(32, 5).double(), torch.randn(32, 6).double()
        optimizer = subject.build(params, **path)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = (x @ params[0].T + params[1] - y).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


def a_tensor_as_rate_is_the_number(subject: Subject) -> None:
    for path in subject.paths:
        rate = torch.tensor(subject.options["lr"], dtype=torch.float64)
        same(moved(subject, **path, lr=rate), moved(subject, **path), 1e-12)


def complex_parameters_are_refused_with_advice(subject: Subject) -> None:
    with pytest.raises(RuntimeError, match="takes no complex parameters; give it their real views"):
        subject.build([nn.Parameter(torch.ones(3, 3, dtype=torch.complex64))])


def a_differentiable_step_is_refused_with_advice(subject: Subject) -> None:
    """Also in a group and in a loaded state, whose unknown options torch ignores."""
    with pytest.raises(ValueError, match=r"has no option differentiable: torch.optim has .*; leave it out"):
        subject.build(parameters(), differentiable=True)
    optimizer = subject.build(parameters())
    with pytest.raises(ValueError, match="differentiable"):
        optimizer.add_param_group({"params": parameters(((2, 2),)), "differentiable": True})
    saved = optimizer.state_dict()
    saved["param_groups"][0]["differentiable"] = True
    with pytest.raises(ValueError, match="differentiable"):
        subject.build(parameters()).load_state_dict(saved)


def all_paths_agree(subject: Subject) -> None:
    """Also with gradients that come and go."""

    def missing(step: int, index: int) -> bool:
        return (step * 7 + index * 3) % 5 == 0

    expected = parameters()
    reference = subject.build(expected, foreach=False)
    train(reference, expected, missing=missing)
    for path in subject.paths_and_default[1:]:
        params = parameters()
        optimizer = subject.build(params, **path)
        train(optimizer, params, missing=missing)
        same(params, expected, 1e-12)
        for p, q in zip(params, expected, strict=True):
            assert optimizer.state[p].keys() == reference.state[q].keys()
            same(list(optimizer.state[p].values()), list(reference.state[q].values()), 1e-12)


def groups_are_separate(subject: Subject) -> None:
    for path in subject.paths:
        together, apart = parameters(((5, 6), (4, 7))), parameters(((5, 6), (4, 7)))
        rates = [{"lr": 0.03, "weight_decay": 0.2}, {"lr": 0.002, "weight_decay": 0.0}]
        groups = [{"params": [p], **rate} for p, rate in zip(together, rates, strict=True)]
        train(subject.cls(groups, **{**subject.options, **path}), together)
        singles = [subject.build([p], **path, **rate) for p, rate in zip(apart, rates, strict=True)]
        for step in range(STEPS):
            for p, g, single in zip(apart, gradients(step, apart), singles, strict=True):
                p.grad = g
                single.step()
        same(together, apart)


def a_rate_of_zero_changes_nothing(subject: Subject) -> None:
    """Neither with gradients nor without, in any mode."""
    modes: list[dict[str, Any]] = [*subject.paths, {"capturable": True}, {"capturable": True, "foreach": True}]
    for mode in [mode for mode in modes if all(subject.takes(option) for option in mode)]:
        for zero in (0.0, torch.tensor(0.0)):
            for gradient in (0.0, 1.0):
                start = parameters()
                params = [p.detach().clone() for p in start]
                options = {"lr": zero, **{name: 0.0 for name in ("adamw_lr", "bias_lr") if subject.takes(name)}}
                optimizer = subject.build(params, **{**mode, **options})
                for _ in range(2):
                    for p in params:
                        p.grad = torch.full(p.shape, gradient, dtype=p.dtype)
                    optimizer.step()
                same(params, start)


def a_changed_rate_holds_from_the_next_step(subject: Subject) -> None:
    for path in subject.paths:
        params = parameters()
        optimizer = subject.build(params, **path)
        train(optimizer, params, range(3))
        before = copy.deepcopy(params)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        train(optimizer, params, range(3, 5))
        same(params, before)


def without_gradients_nothing_happens(subject: Subject) -> None:
    for path in subject.paths:
        params, start = parameters(), parameters()
        optimizer = subject.build(params, **path)
        optimizer.step()
        same(params, start)
        assert not optimizer.state or not any(optimizer.state.values())


def zero_gradients_change_nothing(subject: Subject) -> None:
    for path in subject.paths:
        params, start = parameters(), parameters()
        still = {"weight_decay": 0.0} | ({"unit_norm": False} if subject.takes("unit_norm") else {})
        optimizer = subject.build(params, **path, **still)
        for _ in range(3):
            for p in params:
                p.grad = torch.zeros_like(p)
            optimizer.step()
        same(params, start)


def a_kernel_is_refused_where_it_would_read_other_memory(subject: Subject) -> None:
    """Also when it is asked for later, by a loaded state."""
    if {"fused": True} not in subject.paths:
        return
    whole = parameters(((12,),))[0].detach()
    with pytest.raises(ValueError, match="`fused=True` requires all the params to be floating point Tensors"):
        subject.build([whole[::2].requires_grad_()], fused=True)
    view = whole[::2].requires_grad_()
    optimizer = subject.build([view])
    for group in optimizer.param_groups:
        group["fused"] = True
    before = whole.clone()
    with pytest.raises(
        ValueError, match="`fused=True` requires all the params to be floating point Tensors, dense, on"
    ):
        train(optimizer, [view], range(1))
    same([whole], [before])


def gradients_are_not_touched(subject: Subject) -> None:
    ways = [{**path, **more} for path in subject.paths for more in ({}, {"maximize": True})]
    for way in ways:
        params = parameters()
        optimizer = subject.build(params, **way)
        for step in range(3):
            expected = gradients(step, params)
            for p, g in zip(params, gradients(step, params), strict=True):
                p.grad = g
            versions = [p.grad._version for p in params if p.grad is not None]
            optimizer.step()
            assert versions == [p.grad._version for p in params if p.grad is not None]
            same([p.grad for p in params if p.grad is not None], expected)


def a_saved_state_goes_on_bitwise(subject: Subject) -> None:
    for path in subject.paths:
        straight = moved(subject, **path)
        params = parameters()
        first = subject.build(params, **path)
        train(first, params, range(4))
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = subject.build(params, **{**path, "lr": 0.5})
        second.load_state_dict(torch.load(file, weights_only=True))
        train(second, params, range(4, STEPS))
        same(params, straight)


def a_state_of_another_model_is_refused_before_anything_changes(subject: Subject) -> None:
    """With parameters of other shapes, of the same count too; a fused kernel would write beyond the end of memory."""
    wanted, same = ((3,), (5, 7)), subject.cls.__name__ == "LowRankAdam"  # which takes the wide form of a matrix
    for shape in ((64, 80), (5, 8), (35,), *(() if same else ((7, 5),))):
        for path in subject.paths:
            first, second = (subject.build(parameters(shapes), **path) for shapes in ((wanted[0], shape), wanted))
            train(first, [p for group in first.param_groups for p in group["params"]], range(1))
            if not any(value.ndim for value in state_tensors(first)):
                return  # nothing but steps is kept
            with pytest.raises(
                ValueError, match=r"state is not that of these parameters|match the size|number of param"
            ):
                second.load_state_dict(first.state_dict())
            assert not second.state


def an_older_state_is_read(subject: Subject) -> None:
    """One with steps as numbers, and without the options that came later."""
    straight = moved(subject)
    params = parameters()
    first = subject.build(params)
    train(first, params, range(4))
    saved = first.state_dict()
    for group in saved["param_groups"]:
        for later in ("foreach", "fused", "capturable", "maximize"):
            del group[later]
    for state in saved["state"].values():
        if "step" in state:
            state["step"] = float(state["step"])
    second = subject.build(params)
    second.load_state_dict(saved)
    train(second, params, range(4, STEPS))
    same(params, straight)


def copies_go_on_bitwise(subject: Subject) -> None:
    straight = moved(subject)
    ways: list[Callable[[Any], Any]] = [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))]
    for duplicate in ways:
        params = parameters()
        optimizer = subject.build(params)
        train(optimizer, params, range(4))
        twin_params, twin = duplicate((params, optimizer))
        train(twin, twin_params, range(4, STEPS))
        same(twin_params, straight)


def a_closure_is_called_once_with_gradients(subject: Subject) -> None:
    (p,) = params = parameters(((4, 4),))
    optimizer = subject.build(params)
    calls = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    with torch.no_grad():
        assert optimizer.step(closure) == pytest.approx(parameters(((4, 4),))[0].square().sum().item())
    assert calls == [True]


def maximize_is_the_negative_gradient(subject: Subject) -> None:
    for path in subject.paths:
        up, down = parameters(), parameters()
        first, second = subject.build(up, **path, maximize=True), subject.build(down, **path)
        for step in range(STEPS):
            for p, q, g in zip(up, down, gradients(step, up), strict=True):
                p.grad, q.grad = -g, g
            first.step()
            second.step()
        same(up, down)


def types_do_not_mix(subject: Subject) -> None:
    for path in subject.paths:
        mixed = [*parameters(((5, 6),)), *parameters(((5, 6), (3, 4)), torch.float32)]
        alone = copy.deepcopy(mixed)
        train(subject.build(mixed, **path), mixed)
        for index, p in enumerate(alone):
            optimizer = subject.build([p], **path)
            for step in range(STEPS):
                p.grad = gradients(step, mixed)[index]
                optimizer.step()
        same(mixed, alone, 1e-6)


def autocast_changes_no_step(subject: Subject) -> None:
    """As in a training step of manual optimization, with mixed precision."""
    for path in subject.paths:
        inside, outside = parameters(dtype=torch.float32), parameters(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            train(subject.build(inside, **path), inside)
        train(subject.build(outside, **path), outside)
        same(inside, outside)


def groups_can_come_later(subject: Subject) -> None:
    params, expected = parameters(((5, 6), (4, 7))), parameters(((5, 6), (4, 7)))
    optimizer = subject.build(params[:1])
    train(optimizer, params, range(2))
    optimizer.add_param_group({"params": params[1:]})
    train(optimizer, params, range(2, STEPS))
    train(subject.build(expected[:1]), expected)
    train(subject.build(expected[1:]), expected, range(2, STEPS))
    same(params[1:], expected[1:])


def late_gradients_count_their_own_steps(subject: Subject) -> None:
    for path in subject.paths:
        params, expected = parameters(((5, 6), (4, 7))), parameters(((5, 6), (4, 7)))
        train(subject.build(params, **path), params, missing=lambda step, index: index == 1 and step < 4)
        train(subject.build(expected[1:], **path), expected, range(4, STEPS))
        same(params[1:], expected[1:])


def hooks_are_called(subject: Subject) -> None:
    params = parameters()
    optimizer = subject.build(params)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(optimizer, params, range(2))
    assert calls == ["before", "after"] * 2


def state_is_tensors_in_the_layout_of_the_parameter(subject: Subject) -> None:
    for path in subject.paths:
        p = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last))
        optimizer = subject.build([p], **path)
        p.grad = torch.randn(6, 4, 3, 3)
        optimizer.step()
        for value in optimizer.state[p].values():
            assert isinstance(value, Tensor) and not value.requires_grad
            assert value.shape != p.shape or value.stride() == p.stride()


def memory_layout_does_not_matter(subject: Subject) -> None:
    """Of parameters, gradients and loaded states, in any combination; torch's fused kernels read them as they lie."""
    plain, last = torch.contiguous_format, torch.channels_last
    for path in subject.paths:
        expected = parameters(((6, 4, 3, 3),))
        reference = subject.build(expected, foreach=False)
        train(reference, expected, range(3))
        saved = copy.deepcopy(reference.state_dict())
        train(reference, expected, range(3, 5))
        for of_p, of_g in ((plain, last), (last, plain), (last, last)):
            params: list[Tensor] = [nn.Parameter(parameters(((6, 4, 3, 3),))[0].detach().to(memory_format=of_p))]
            optimizer = subject.build(params, **path)
            for step in range(5):
                params[0].grad = gradients(step, params)[0].to(memory_format=of_g)
                optimizer.step()
                if step == 2:
                    optimizer.load_state_dict(copy.deepcopy(saved))
                    for group in optimizer.param_groups:
                        group.update(foreach=path.get("foreach"), fused=path.get("fused"))
                if step == 3:
                    params[0].data = params[0].data.contiguous(memory_format=of_g)
            same(params, expected, 1e-12)


def slices_of_memory_are_updated_alone(subject: Subject) -> None:
    """A parameter with gaps, like every second column of a tensor."""
    for path in subject.paths_and_default:
        if path.get("fused"):
            continue
        whole = parameters(((6, 8),))[0].detach()
        (expected,) = parameters(((6, 8),))
        view = whole[:, ::2].requires_grad_()
        single = nn.Parameter(expected[:, ::2].detach().clone())
        for p in (view, single):
            optimizer = subject.build([p], **path)
            train(optimizer, [p])
        same([view], [single], 1e-12)
        same([whole[:, 1::2]], [expected[:, 1::2]])


def capturable_is_the_same(subject: Subject) -> None:
    if subject.takes("capturable"):
        for more in ({"foreach": False}, {"foreach": True}):
            for rate in (subject.options["lr"], torch.tensor(subject.options["lr"], dtype=torch.float64)):
                same(moved(subject, **{"capturable": True, "lr": rate}, **more), moved(subject, **more), 1e-6)


def a_rate_may_be_a_tensor_with_one_element(subject: Subject) -> None:
    """With or without a dimension, as in torch; it is read anew in every step."""
    for path in subject.paths:
        expected = moved(subject, **path)
        for shape in ((), (1,)):
            rate, params = torch.tensor(0.5).expand(shape).clone(), parameters()
            optimizer = subject.build(params, **{**path, "lr": rate})
            if subject.cls.__name__ != "Muon":  # whose groups of vectors have a rate of their own
                assert all(group["lr"].data_ptr() == rate.data_ptr() for group in optimizer.param_groups)
            rate.fill_(subject.options["lr"])
            train(optimizer, params)
            same(params, expected, 1e-6)


CHECKS: list[Callable[[Subject], None]] = [
    value
    for name, value in globals().copy().items()
    if inspect.isfunction(value) and list(inspect.signature(value).parameters) == ["subject"]
]
