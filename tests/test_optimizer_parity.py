"""The optimizers of the package equal torch's bit for bit, over every input of torch's own test database."""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvcc_zoo.optim import SGD, Adafactor, Adagrad, Adam, AdamW, Muon, RMSprop
from cvcc_zoo.optim.build import find_optimizer
from tests.optimizer_checks import gradients, parameters

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # of hypothesis, which torch's own tests use
    # The options that torch tries on its optimizers: in its wheel, but not in its stable interface.
    from torch.testing._internal import common_optimizers

INFOS: list[Any] = common_optimizers.optim_db
DATABASE = {info.optim_cls.__name__: info for info in INFOS}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FILTERS = ((7, 5), (3,), (), (4, 3, 3, 3))
MATRICES = ((7, 5), (5, 7), (16, 16), (5, 7))
STEPS = 24


def inputs(optimizer: Any, device: str) -> Iterator[dict[str, Any]]:
    for example in DATABASE[optimizer.__name__].optim_inputs_func(device=device):
        yield example.kwargs


def cases(*optimizers: Any) -> list[Any]:
    return [
        pytest.param(optimizer, device, options, id=f"{optimizer.__name__}-{device}-{options}")
        for optimizer in optimizers
        for device in DEVICES
        for options in inputs(optimizer, device)
    ]


def difference(
    ours: Callable[[list[Tensor]], Optimizer],
    theirs: Callable[[list[Tensor]], Optimizer],
    shapes: tuple[tuple[int, ...], ...],
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    steps: int = STEPS,
    exchange: bool = True,
) -> float:
    """The largest difference after some steps; half way each loads the state of the other."""
    start = parameters(shapes, dtype)
    pair: list[list[Tensor]] = [[nn.Parameter(p.detach().clone().to(device)) for p in start] for _ in range(2)]
    optimizers = [ours(pair[0]), theirs(pair[1])]
    for step in range(steps):
        for params in pair:
            for p, g in zip(params, gradients(step, params), strict=True):
                p.grad = g.to(device)
        for optimizer in optimizers:
            optimizer.step()
        if exchange and step == steps // 2:
            states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
            for optimizer, state in zip(optimizers, reversed(states), strict=True):
                optimizer.load_state_dict(state)
    return max(float((p - q).detach().abs().max()) for p, q in zip(*pair, strict=True))


def test_the_database_has_all_of_them() -> None:
    for optimizer in (SGD, Adagrad, RMSprop, Adam, AdamW, Adafactor, Muon):
        assert len(list(inputs(optimizer, "cpu"))) >= 5


WORK_HERE = {
    ("Adam", "lr as Tensor doesn't work with foreach & not capturable"),
    ("AdamW", "lr as Tensor doesn't work with foreach & not capturable"),
    ("Muon", "only support 2D parameters"),
}
"""What torch refuses and ours can do: a tensor as rate gives the numbers of a float, filters are flattened."""


@pytest.mark.parametrize("optimizer", [SGD, Adagrad, RMSprop, Adam, AdamW, Adafactor, Muon])
def test_what_torch_refuses_is_refused_by_the_same_kind_of_error(optimizer: Any) -> None:
    wrong = DATABASE[optimizer.__name__].optim_error_inputs_func(device="cpu", dtype=torch.float32)
    assert len(wrong) >= 7
    for each in wrong:
        example = each.optimizer_error_input
        expected = pytest.warns if issubclass(each.error_type, Warning) else pytest.raises
        if (optimizer.__name__, example.desc) in WORK_HERE:
            p = nn.Parameter(torch.ones(2, 3, 4))
            optimizer([p], **example.kwargs)
        else:
            with expected(each.error_type):
                optimizer(example.params, **example.kwargs)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("optimizer", "device", "options"), cases(SGD, Adagrad, RMSprop, Adam, AdamW))
def test_loop_and_foreach_equal_torchs(optimizer: Any, device: str, options: dict[str, Any], foreach: bool) -> None:
    theirs = DATABASE[optimizer.__name__].optim_cls
    how: dict[str, Any] = {**options, "foreach": foreach}
    assert difference(lambda p: optimizer(p, **how), lambda p: theirs(p, **how), FILTERS, device) == 0


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("optimizer", "device", "options"), cases(Adafactor))
def test_adafactor_on_matrices_and_vectors_equals_torchs(
    optimizer: Any, device: str, options: dict[str, Any], foreach: bool
) -> None:
    how: dict[str, Any] = {**options, "foreach": foreach}
    shapes = (*MATRICES, (3,), ())
    assert difference(lambda p: Adafactor(p, **how), lambda p: torch.optim.Adafactor(p, **how), shapes, device) == 0


@pytest.mark.parametrize(("optimizer", "device", "options"), cases(SGD, Adagrad, Adam, AdamW))
def test_the_default_is_torchs_fused_kernel(optimizer: Any, device: str, options: dict[str, Any]) -> None:
    if optimizer is Adagrad and device == "cuda":
        return  # foreach there
    theirs = DATABASE[optimizer.__name__].optim_cls
    for dtype in (torch.float32, torch.float64):
        found = difference(
            lambda p: optimizer(p, **options),
            lambda p: theirs(p, **options, fused=True),
            FILTERS,
            device,
            dtype,
            exchange=False,  # torch's would go on with our default, which is its loop
        )
        assert found == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optimizer", [SGD, Adagrad, RMSprop, Adam, AdamW])
def test_the_loop_equals_torchs_in_every_precision(optimizer: Any, dtype: torch.dtype) -> None:
    theirs = DATABASE[optimizer.__name__].optim_cls
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "foreach": False}
    options |= {"momentum": 0.9} if optimizer is SGD else {"eps": 0.1}  # smaller ones vanish in float16
    assert difference(lambda p: optimizer(p, **options), lambda p: theirs(p, **options), FILTERS, dtype=dtype) == 0


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("optimizer", [Adam, AdamW, RMSprop])
@pytest.mark.parametrize("device", [device for device in DEVICES if device == "cuda"])
def test_a_captured_step_equals_an_eager_one(device: str, optimizer: Any, foreach: bool) -> None:
    """As a CUDA graph, replayed with new gradients."""
    pair = [[nn.Parameter(p.detach().float().to(device)) for p in parameters(FILTERS)] for _ in range(2)]
    for params in pair:
        for p in params:
            p.grad = torch.zeros_like(p)
    eager = optimizer(pair[0], lr=0.01, foreach=foreach)
    graphed = optimizer(pair[1], lr=0.01, foreach=foreach, capturable=True)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # warm-up, with gradients of zero
            graphed.step()
    torch.cuda.current_stream().wait_stream(side)
    for _ in range(3):
        eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        graphed.step()
    for step in range(10):
        for params in pair:
            for p, g in zip(params, gradients(step, params), strict=True):
                assert p.grad is not None
                p.grad.copy_(g)
        eager.step()
        graph.replay()
    for p, q in zip(*pair, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def matched(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of our Muon that mean torch's defaults."""
    defaults = {name: p.default for name, p in inspect.signature(torch.optim.Muon).parameters.items()}
    del defaults["params"]
    return {**defaults, **options}


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our Muon iterate in bfloat16 on every device, as those of torch and timm do."""
    monkeypatch.setattr("cvcc_zoo.optim.muon.precision", lambda p: torch.bfloat16)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("optimizer", "device", "options"), cases(Muon))
def test_muon_equals_torchs_on_matrices(optimizer: Any, device: str, options: dict[str, Any]) -> None:
    def ours(p: list[Tensor], **how: Any) -> Muon:
        return Muon(p, **matched(options), **how)

    def theirs(p: list[Tensor]) -> Optimizer:
        return torch.optim.Muon(p, **options)

    assert difference(lambda p: ours(p, foreach=False), theirs, MATRICES, device) == 0
    together = difference(ours, theirs, MATRICES, device)  # equal shapes at once: other kernels, other rounding
    assert together <= STEPS * 2**-8 * float(options.get("lr", 1e-3)) * 2


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("device", DEVICES)
def test_muon_equals_timms_on_filters(device: str) -> None:
    options: dict[str, Any] = {"lr": 0.02, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1, "eps": 1e-7}
    found = difference(
        lambda p: Muon(p, **options, foreach=False),
        lambda p: find_optimizer("timm.muon")(p, **options, ns_coefficients="original", adjust_lr_fn="original"),
        ((16, 8, 3, 3), (8, 16, 1, 1), (32, 16, 3, 3), (16, 8, 3, 3)),
        device,
        steps=20,
        exchange=False,
    )
    assert found == 0


def test_adamw_in_muon_is_torchs() -> None:
    options: dict[str, Any] = {"weight_decay": 0.1, "eps": 1e-8}
    found = difference(
        lambda p: Muon([{"params": p, "use_muon": False}], adamw_lr=0.01, **options),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.95), **options, fused=True),
        FILTERS,
        exchange=False,
    )
    assert found == 0


def test_sgd_in_muon_is_torchs() -> None:
    found = difference(
        lambda p: Muon([{"params": p, "use_muon": False}], sgd_lr=0.01, sgd_momentum=0.85, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.85, nesterov=True, weight_decay=0.1, fused=True),
        FILTERS,
        exchange=False,
    )
    assert found == 0


def test_a_state_of_torchs_adafactor_with_filters_is_refused() -> None:
    params = parameters(((4, 3, 3, 3),))
    params[0].grad = torch.ones(4, 3, 3, 3).double()
    theirs = torch.optim.Adafactor(params)
    theirs.step()  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"row_var is \(4, 3, 3, 1\), but .* needs \(4, 1\)"):
        Adafactor(params).load_state_dict(theirs.state_dict())
