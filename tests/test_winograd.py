"""Winograd's algorithm: the convolution against torch's, and the callback that uses it in training."""

import copy
import importlib.util
import io
import json
import pickle
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.autograd import forward_ad

import cvcc_zoo
from cvcc_zoo.models.layers import ShiftedConv2d
from cvcc_zoo.models.winograd import AT, BT, G, gain, winograd_conv2d
from cvcc_zoo.runs import Compile, Winograd
from cvcc_zoo.runs.winograd import convolutions, default_winograd, replace, restore, used_winograd
from tests.conftest import Fit


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    ours, expected = ours.detach(), expected.detach()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_matrices_filter_exactly() -> None:
    """In exact arithmetic the tile of a 6x6 window equals the 16 sums of products, for each unit window and filter."""
    at, bt, g = (each.double() for each in (AT, BT, G))
    windows, filters = torch.eye(36).double().view(36, 6, 6), torch.eye(9).double().view(9, 3, 3)
    for window, filter_ in product(windows, filters):
        tile = at @ ((g @ filter_ @ g.T) * (bt @ window @ bt.T)) @ at.T
        expected = F.conv2d(window[None, None], filter_[None, None])[0, 0]
        torch.testing.assert_close(tile, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 9), (7, 8), (16, 16), (1, 6), (31, 2)])
def test_equals_torch(padding: int, size: tuple[int, int]) -> None:
    if min(size) + 2 * padding < 3:
        pytest.skip("too small for the window")
    x, w = random(5, 6, *size).requires_grad_(), random(7, 6, 3, 3, seed=1).requires_grad_()
    ours, expected = winograd_conv2d(x, w, padding), F.conv2d(x, w, padding=padding)
    assert_close(ours, expected)
    grad = random(*expected.shape, seed=2)
    for mine, its in zip(
        torch.autograd.grad(ours, (x, w), grad), torch.autograd.grad(expected, (x, w), grad), strict=True
    ):
        assert_close(mine, its)


def test_many_blocks() -> None:
    """Tiles are transformed in blocks of images; the last block has fewer."""
    x, w = random(75, 4, 16, 16).requires_grad_(), random(4, 4, 3, 3, seed=1).requires_grad_()
    ours, expected = winograd_conv2d(x, w), F.conv2d(x, w, padding=1)
    assert_close(ours, expected)
    sums = (torch.autograd.grad(y.square().sum(), (x, w)) for y in (ours, expected))
    for mine, its in zip(*sums, strict=True):
        assert_close(mine, its)
    assert winograd_conv2d(x[:0], w).shape == (0, 4, 16, 16)


def test_keeps_the_memory_format() -> None:
    x, w = random(2, 8, 9, 9), random(8, 8, 3, 3, seed=1)
    assert winograd_conv2d(x, w).is_contiguous()
    last = winograd_conv2d(x.contiguous(memory_format=torch.channels_last), w)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_close(last, F.conv2d(x, w, padding=1))
    crossed = winograd_conv2d(x.transpose(2, 3)[:, :, ::2], w)  # strides of neither format
    assert_close(crossed, F.conv2d(x.transpose(2, 3)[:, :, ::2], w, padding=1))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_output_can_be_changed_in_place(memory_format: torch.memory_format) -> None:
    x, w = random(2, 8, 8, 8).to(memory_format=memory_format).requires_grad_(), random(8, 8, 3, 3, seed=1)
    (ours,) = torch.autograd.grad(F.relu(winograd_conv2d(x, w), inplace=True).sum(), x)
    (expected,) = torch.autograd.grad(F.relu(F.conv2d(x, w, padding=1)).sum(), x)
    assert_close(ours, expected)


def test_second_derivatives() -> None:
    """A penalty on the gradient, as in gradient-penalty losses, is differentiated again."""
    results = []
    for convolve in (winograd_conv2d, lambda x, w: F.conv2d(x, w, padding=1)):
        x, w = random(2, 3, 6, 6).requires_grad_(), random(4, 3, 3, 3, seed=1).requires_grad_()
        (first,) = torch.autograd.grad(convolve(x, w).tanh().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), (x, w)))
    for mine, its in zip(*results, strict=True):
        assert_close(mine, its)


def test_defaults_of_torch_do_not_matter() -> None:
    """The result has the dtype and the device of the images, as that of conv2d."""
    x, w = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3).requires_grad_()
    spec = importlib.util.find_spec("cvcc_zoo.models.winograd")
    assert spec is not None and spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            spec.loader.exec_module(imported)
            y: Tensor = imported.winograd_conv2d(x, w)
            (of_w,) = torch.autograd.grad(y[0, 0, 1, 1], w)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(y, F.conv2d(x, w, padding=1))
    assert_close(of_w[0], x[0, :, :3, :3])


def test_many_gradients_at_once() -> None:
    """As of a vectorised Jacobian, in both ways that torch has."""
    x, w = random(2, 3, 6, 6).requires_grad_(), random(4, 3, 3, 3, seed=1).requires_grad_()
    grads = random(5, 2, 4, 6, 6, seed=2)
    ours = torch.autograd.grad(winograd_conv2d(x, w), (x, w), grads, is_grads_batched=True)
    expected = torch.autograd.grad(F.conv2d(x, w, padding=1), (x, w), grads, is_grads_batched=True)
    for mine, its in zip(ours, expected, strict=True):
        assert_close(mine, its)
    y = winograd_conv2d(x, w)
    (of_w,) = torch.func.vmap(lambda grad: torch.autograd.grad(y, w, grad))(grads)
    assert_close(of_w, expected[1])


@pytest.mark.parametrize("wanted", ["input", "weight"])
def test_gradient_of_one_alone(wanted: str) -> None:
    x, w = random(2, 3, 6, 6), random(4, 3, 3, 3, seed=1)
    leaf = {"input": x, "weight": w}[wanted].requires_grad_()
    (ours,) = torch.autograd.grad(winograd_conv2d(x, w).square().sum(), leaf)
    (expected,) = torch.autograd.grad(F.conv2d(x, w, padding=1).square().sum(), leaf)
    assert_close(ours, expected)


def test_gain() -> None:
    """More channels gain more, outputs beyond the image cost."""
    assert gain(64, 64, 32, 32) == pytest.approx(3.2 / (1 + 39 / 32))
    assert gain(256, 256, 15, 15) == pytest.approx(3.2 / (1 + 39 / 128) * 225 / 256)
    assert gain(16, 16, 32, 32) < 1 < gain(512, 512, 4, 4)
    assert gain(512, 512, 1, 1) < 1


@pytest.mark.parametrize(
    ("x", "w", "padding", "message"),
    [
        (torch.zeros(1, 3, 8, 8).double(), torch.zeros(4, 3, 3, 3).double(), 1, "computes in float32"),
        (torch.zeros(1, 3, 8, 8).bfloat16(), torch.zeros(4, 3, 3, 3), 1, "not in torch.bfloat16"),
        (torch.zeros(3, 8, 8), torch.zeros(4, 3, 3, 3), 1, r"not \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 2, 3, 3), 1, r"\(4, 2, 3, 3\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 5, 5), 1, r"\(4, 3, 5, 5\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3), 3, "a padding of 0, 1 or 2"),
        (torch.zeros(1, 3, 2, 8), torch.zeros(4, 3, 3, 3), 0, "2x8 pixels are too small"),
    ],
)
def test_refuses(x: Tensor, w: Tensor, padding: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        winograd_conv2d(x, w, padding)


class Wide(nn.Module):
    """Three 3x3 convolutions, of which the second is wide, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(64, 96, 3, padding="same", bias=True),
            nn.ReLU(inplace=True), nn.Conv2d(96, 64, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.fc = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.layers(x))
        return y


QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "use_distributed_sampler": False,
}  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether gradients were on, for each convolution that was computed by Winograd's algorithm."""
    seen: list[bool] = []

    def counted(*args: Any) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return winograd_conv2d(*args)

    monkeypatch.setattr("cvcc_zoo.runs.winograd.winograd_conv2d", counted)
    return seen


def trained(colours: Path, callbacks: list[Any], **options: Any) -> tuple[cvcc_zoo.ImageClassifier, Trainer]:
    torch.manual_seed(0)
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=16, validation=0.2)
    model = cvcc_zoo.ImageClassifier.wrap(Wide(), num_classes=2, image_size=8)
    trainer = Trainer(callbacks=callbacks, **QUIET | {"max_epochs": 2} | options)
    trainer.fit(model, data)
    return model, trainer


def test_training_gives_the_same_weights_up_to_rounding(colours: Path, calls: list[bool]) -> None:
    expected, _ = trained(colours, [])
    assert not calls
    ours, trainer = trained(colours, [Winograd()])
    assert calls == [True] * trainer.global_step  # the second convolution, and never in validation
    assert used_winograd(trainer)
    for (name, mine), its in zip(ours.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-4, msg=name)
    calls.clear()
    ours.train()
    ours(random(16, 3, 8, 8).sigmoid())
    assert not calls  # torch's convolutions are restored


@pytest.mark.parametrize(("limit", "required", "expected"), [(65, True, 1), (65, False, 0), (64, True, 0)])
def test_a_training_whose_images_are_too_few_says_so(
    colours: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, limit: int, required: bool,
    expected: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("cvcc_zoo.runs.winograd.LEAST_PIXELS", 16 * limit)  # a batch has 16 images of 8x8 pixels
    with caplog.at_level("INFO"):
        trained(colours, [Winograd(required=required)], max_epochs=1, limit_train_batches=1)
    assert caplog.text.count("Winograd: no step used it, because the images are too few") == expected


def test_a_training_that_fails_restores_the_convolutions(colours: Path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("of the user")

    model = cvcc_zoo.ImageClassifier.wrap(Wide(), num_classes=2, image_size=8)
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=16, validation=0)
    with pytest.raises(RuntimeError, match="of the user"):
        Trainer(max_epochs=1, callbacks=[Winograd(), Fails()], **QUIET).fit(model, data)
    assert len(convolutions(model)) == 1
    assert not any("_conv_forward" in vars(each) for each in model.modules())


def test_models_can_be_copied_and_pickled_while_they_train(colours: Path, calls: list[bool]) -> None:
    """As averages of the weights and the callbacks of others do; a copy uses its own weights."""
    copies: list[nn.Module] = []

    class Copies(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            network: Any = pl_module.network
            copies.extend((copy.deepcopy(network), pickle.loads(pickle.dumps(network))))

    trained(colours, [Winograd(), Copies()], max_epochs=1)
    images = random(16, 3, 8, 8)
    for network in copies:
        calls.clear()
        before = network.train()(images)
        assert calls
        for p in network.parameters():
            p.data.mul_(2)
        assert not torch.allclose(network(images), before)


@pytest.mark.parametrize(
    ("callbacks", "options", "message"),
    [
        ([], {"precision": "bf16-mixed"}, r"not in bf16-mixed; train with --trainer.precision=32-true, or leave out"),
        ([Compile()], {}, "leave out Compile"),
    ],
)
def test_what_forbids_it(
    colours: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch, callbacks: list[Any], options: Any, message: str
) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    with pytest.raises(ValueError, match=message):
        trained(colours, [Winograd(), *callbacks], **options)
    trained(colours, [Winograd(required=False), *callbacks], **options)
    assert not calls


def test_a_model_without_wide_convolutions_is_refused(colours: Path) -> None:
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=16)
    model = cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8)
    with pytest.raises(ValueError, match=r"no 3x3 convolution.*choose another model, or leave out Winograd"):
        Trainer(max_epochs=1, callbacks=[Winograd()], **QUIET).fit(model, data)


@pytest.mark.parametrize(
    ("capability", "threads", "chosen", "expected"),
    [
        ("AVX2", 4, [], True),
        ("AVX2", 5, [], False),
        ("AVX512", 2, [], False),
        ("DEFAULT", 2, [], False),
        ("AVX2", 2, [Winograd()], False),
        ("AVX2", 2, [Winograd(enabled=False)], False),
        ("AVX2", 2, [Compile()], True),
    ],
)
def test_it_is_added_on_processors_with_avx2_unless_it_is_chosen(
    monkeypatch: pytest.MonkeyPatch, capability: str, threads: int, chosen: list[Callback], expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert [each.required for each in default_winograd(chosen) if isinstance(each, Winograd)] == [False] * expected


@pytest.mark.parametrize(
    ("capability", "more", "expected"),
    [
        ("AVX512", ["--trainer.callbacks+=Winograd"], True),
        ("AVX2", ["--trainer.callbacks+=Winograd", "--trainer.callbacks.enabled=false"], False),
    ],
)
def test_fit_uses_it_where_it_is_chosen(
    fit: Fit, calls: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: str, more: list[str],
    expected: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    model = [
        "--model=CNN",
        "--model.channels=[80]",
        "--model.convolutions=2",
        "--data.batch_size=64",
        "--data.image_size=16",
    ]
    run = tmp_path / "run"
    assert fit(*model, f"--run={run}", "--trainer.precision=32-true", *more) == 0
    assert bool(calls) == expected
    assert json.loads((run / "summary.json").read_text())["winograd"] == expected


def test_the_summary_says_whether_steps_used_it(fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps of few images do not; a finished run that only its test is left to do did, on whatever processor."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    model = ["--model=CNN", "--model.channels=[80]", "--model.convolutions=2", "--data.image_size=16"]
    few, many = tmp_path / "few", tmp_path / "many"
    assert fit(*model, "--data.batch_size=2", f"--run={few}", "--trainer.precision=32-true") == 0
    assert json.loads((few / "summary.json").read_text())["winograd"] is False
    assert fit(*model, f"--run={many}", "--trainer.precision=32-true") == 0
    (many / "summary.json").unlink()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert fit(f"--config={many / 'config.yaml'}", "--ckpt_path=last") == 0
    assert json.loads((many / "summary.json").read_text())["winograd"] is True


class Strange(nn.Conv2d):
    """A convolution that computes something else."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        twice: Tensor = 2 * super()._conv_forward(input, weight, bias)
        return twice


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        (nn.Conv2d(80, 80, 3), True),
        (nn.Conv2d(80, 80, 3, padding=2), True),
        (nn.Conv2d(80, 80, 3, padding="valid"), True),
        (ShiftedConv2d(80, 80, 3, padding=1), True),
        (nn.Conv2d(32, 32, 3), False),
        (nn.Conv2d(64, 64, 3), False),  # two threads would hardly gain
        (nn.Conv2d(80, 80, 3, padding=3), False),
        (nn.Conv2d(80, 80, 3, padding=(0, 1)), False),
        (nn.Conv2d(80, 80, 3, stride=2), False),
        (nn.Conv2d(80, 80, 3, dilation=2), False),
        (nn.Conv2d(128, 128, 3, groups=2), False),
        (nn.Conv2d(80, 80, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(80, 80, 5), False),
        (nn.Conv2d(80, 80, (3, 1)), False),
        (nn.LazyConv2d(80, 3), False),
        (nn.Conv1d(80, 80, 3), False),
        (nn.ConvTranspose2d(80, 80, 3), False),
        (Strange(80, 80, 3), False),
    ],
)
def test_which_convolutions(convolution: nn.Module, expected: bool) -> None:
    assert bool(convolutions(nn.Sequential(convolution))) == expected


@pytest.fixture
def wide() -> nn.Conv2d:
    """A convolution as it is during training."""
    convolution = nn.Conv2d(80, 80, 3, padding=1)
    replace(convolution)
    return convolution


def test_parametrized_and_shifted_weights_are_used(calls: list[bool]) -> None:
    for convolution in (
        nn.utils.parametrizations.weight_norm(nn.Conv2d(80, 80, 3, padding=1)),
        ShiftedConv2d(80, 80, 3, padding=1),
    ):
        if isinstance(convolution, ShiftedConv2d):
            convolution.shift.data.fill_(0.5)
        images = random(2, 80, 32, 32)
        expected = convolution(images)
        replace(convolution)
        assert_close(convolution(images), expected)
    assert len(calls) == 2


def test_where_torch_computes(wide: nn.Conv2d, calls: list[bool]) -> None:
    """In evaluation, in other types, under torch.func and autocast, for few pixels, unbatched and empty images."""
    images = random(4, 80, 16, 16)
    wide(images)
    assert calls == [True]
    for x in (images[:3], images[0], images[:0], images[:, :, :2, :2]):
        assert wide(x).shape == F.conv2d(x, wide.weight, padding=1).shape
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(images).dtype == torch.bfloat16
    state: dict[str, Tensor] = dict(wide.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(wide, parameters, (image,))
        return y.square().sum()

    assert torch.func.grad(loss)(state, images)["weight"].shape == wide.weight.shape
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(state, images[:, None].expand(4, 4, 80, 16, 16))
    assert each["weight"].shape == (4, *wide.weight.shape)
    wide.eval()(images)
    assert wide.double()(images.double()).dtype == torch.float64
    assert calls == [True]


def test_changes_of_a_convolution_during_training_count(wide: nn.Conv2d) -> None:
    """As of a callback that dilates; afterwards it is restored all the same."""
    images, plain = random(4, 80, 16, 16), copy.deepcopy(wide)
    restore(plain)
    for name, value in (("padding", (0, 1)), ("stride", (2, 2)), ("dilation", (2, 2)), ("padding_mode", "circular")):
        for each in (wide, plain):
            setattr(each, name, value)
            each._reversed_padding_repeated_twice = [1, 1, 0, 0]
        torch.testing.assert_close(wide(images), plain(images), rtol=0, atol=0)
    restore(wide)
    assert "_conv_forward" not in vars(wide)


def test_a_forward_pass_that_the_user_changed_stays() -> None:
    convolution: Any = nn.Conv2d(80, 80, 3, padding=1)
    mine = convolution._conv_forward = lambda input, weight, bias: input
    assert convolutions(convolution) == []
    replace(convolution)
    restore(convolution)
    assert convolution._conv_forward is mine


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_traced_as_torchs(wide: nn.Conv2d, calls: list[bool]) -> None:
    """By torch.jit, also into a file, and by a tracer of torch.fx that looks into the convolution."""

    class Within(torch.fx.Tracer):
        def is_leaf_module(self, *_: Any) -> bool:
            return False

    images = random(4, 80, 16, 16)
    jit: Any = torch.jit
    traced = jit.trace(wide, images, check_trace=False)  # the check compares the results to the last digit
    jit.save(traced, io.BytesIO())
    graph = Within().trace(nn.Sequential(wide))
    assert torch.conv2d in [node.target for node in graph.nodes] and not calls
    jit.script(wide)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_other_layouts_and_forward_mode_as_torchs(wide: nn.Conv2d, calls: list[bool]) -> None:
    images = random(4, 80, 16, 16)
    with torch.no_grad():
        assert wide(images.to_mkldnn()).to_dense().shape == images.shape
    forward: Any = forward_ad
    with forward.dual_level():
        output = wide(forward.make_dual(images, images))
        tangent = forward.unpack_dual(output).tangent
    assert_close(tangent, F.conv2d(images, wide.weight, padding=1))
    with pytest.raises(RuntimeError, match="to have 80 channels"):
        wide(images[:, :32])
    assert not calls


def test_compiled_and_exported_as_torchs(wide: nn.Conv2d, calls: list[bool]) -> None:
    images = random(4, 80, 16, 16)
    torch.compile(wide, backend="eager", fullgraph=True)(images)
    program = torch.export.export(wide, (images,))
    assert not calls and "conv2d" in str(program.graph)
