import inspect
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
from torch import Tensor, nn

import cvcc_zoo
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.losses import LOSSES, check_labels, hinge, make_loss, takes_soft_labels
from tests.conftest import Fit, message

LOGITS = torch.tensor([[3.0, 1.0, -2.0, 0.5]], dtype=torch.float64)
LABEL = torch.tensor([1])


@pytest.mark.parametrize(
    ("spec", "value", "gradient"),
    [
        ("hinge", 3.5, [1, -2, 0, 1]),
        ({"name": "hinge", "power": 2}, 9.25, [6, -7, 0, 1]),
        ("crammer_singer", 3, [1, -1, 0, 0]),
        ({"name": "hinge", "margin": 2}, 5.5, [1, -2, 0, 1]),
        ("squared_error", 13.25, [6, 0, -4, 1]),
        ("cross_entropy", 2.202253447679, [0.816888, -0.889446, 0.005504, 0.067054]),
        (
            {"name": "cross_entropy", "label_smoothing": 0.1},
            2.239753447679,
            [0.791888, -0.814446, -0.019496, 0.042054],
        ),
    ],
)
def test_values_and_gradients_are_those_of_the_definition(spec: object, value: float, gradient: list[float]) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = make_loss(spec)(logits, LABEL)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(value, abs=1e-11)
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0], torch.tensor(gradient, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("power", [1, 2])
def test_the_hinge_is_the_sum_where_torch_takes_the_mean_over_the_classes(power: int) -> None:
    logits, labels = torch.randn(16, 10, dtype=torch.float64), torch.randint(10, (16,))
    ours = make_loss({"name": "hinge", "power": power})(logits, labels)
    assert torch.allclose(ours, 10 * F.multi_margin_loss(logits, labels, p=power))


def test_the_largest_violation_is_between_a_share_of_their_sum_and_the_sum() -> None:
    logits, labels = torch.randn(64, 10, dtype=torch.float64), torch.randint(10, (64,))
    largest, summed = (make_loss(name)(logits, labels, reduction="none") for name in ("crammer_singer", "hinge"))
    assert torch.all(largest <= summed) and torch.all(summed <= 9 * largest)


@pytest.mark.parametrize("name", ["hinge", "crammer_singer"])
@pytest.mark.parametrize("power", [1, 2])
def test_a_hinge_scales_with_its_margin_and_its_kink_has_no_gradient(name: str, power: int) -> None:
    logits, labels = torch.randn(16, 10, dtype=torch.float64), torch.randint(10, (16,))
    one, three = (make_loss({"name": name, "power": power, "margin": margin}) for margin in (1, 3))
    assert torch.allclose(three(3 * logits, labels), 3**power * one(logits, labels))
    at_kink = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    one(at_kink, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert at_kink.grad is not None and not at_kink.grad.any()


@pytest.mark.parametrize("name", ["cross_entropy", "hinge", "crammer_singer", "squared_error"])
def test_the_loss_of_each_image_has_the_mean(name: str) -> None:
    logits, labels = torch.randn(16, 10, dtype=torch.float64), torch.randint(10, (16,))
    loss = make_loss(name)
    assert torch.allclose(loss(logits, labels), loss(logits, labels, reduction="none").mean())


def test_l2_is_the_square_of_the_weights_without_biases_and_norms() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    penalty = make_loss({"name": "hinge", "l2": 0.5}).penalty(network)
    squares = [module.weight.square().sum() for module in network if isinstance(module, torch.nn.Linear)]
    assert torch.allclose(penalty, 0.5 * torch.stack(squares).sum())
    for module in network:
        module.get_parameter("weight").requires_grad_(False)
    assert make_loss({"name": "hinge", "l2": 0.5}).penalty(network) == 0


def test_a_step_with_l2_is_one_with_twice_the_weight_decay() -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    states = []
    for l2, weight_decay in ((0.05, 0.0), (0.0, 0.1)):
        torch.manual_seed(0)
        optimizer: dict[str, Any] = {"name": "SGD", "lr": 0.1, "weight_decay": weight_decay}
        data = cvcc_zoo.ImageDataModule(image_size=8, batch_size=64, augmentations="none")
        loss = {"name": "hinge", "l2": l2}
        model = cvcc_zoo.create("linear", in_channels=1, image_size=8, optimizer=optimizer, loss=loss)
        trainer = Trainer(max_steps=3, limit_val_batches=0, enable_checkpointing=False, accelerator="cpu", **quiet)
        trainer.fit(model, data)
        states.append(model.network.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "hinge", "margin": 0}, "loss hinge: margin must be above 0, not 0"),
        ({"name": "hinge", "power": 3}, "power must be 1 or 2, not 3"),
        ({"name": "crammer_singer", "margin": -1.0}, "margin must be above 0"),
        ({"name": "cross_entropy", "label_smoothing": 1}, r"label_smoothing must be in \[0, 1\)"),
        ({"name": "squared_error", "l2": -0.1}, "l2 must be at least 0"),
        ({"name": "squared_error", "l2": "much"}, "l2 must be at least 0, not 'much'"),
        ({"name": "hinge", "margin": math.nan}, "margin must be above 0, not nan"),
    ],
)
def test_wrong_options_of_a_loss_are_told(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_loss(options)


def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    assert make_loss("cross_entropy")(torch.zeros(4, 10), torch.arange(4)).item() == pytest.approx(math.log(10))


def test_an_unknown_loss_or_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no loss named 'cross_entrpy'; did you mean cross_entropy"):
        make_loss("cross_entrpy")
    with pytest.raises(ValueError, match="no option of loss hinge named 'margn'; did you mean margin"):
        make_loss({"name": "hinge", "margn": 2})


@pytest.mark.parametrize("name", ["cross_entropy", "squared_error"])
def test_a_soft_label_of_one_class_is_the_label(name: str) -> None:
    logits, labels = torch.randn(16, 10, dtype=torch.float64), torch.randint(10, (16,))
    soft = F.one_hot(labels, 10).double()
    assert torch.allclose(make_loss(name)(logits, soft), make_loss(name)(logits, labels))


def test_cross_entropy_of_a_mixed_label_is_the_mixed_cross_entropy() -> None:
    logits, first, second = torch.randn(8, 10), torch.randint(10, (8,)), torch.randint(10, (8,))
    soft = 0.3 * F.one_hot(first, 10) + 0.7 * F.one_hot(second, 10)
    loss = make_loss("cross_entropy")
    assert torch.allclose(loss(logits, soft), 0.3 * loss(logits, first) + 0.7 * loss(logits, second))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.tensor([0, -100]), r"labels must be in 0 .. 2 for 3 classes, got -100 .. 0"),
        (torch.tensor([0, 3]), r"labels must be in 0 .. 2 for 3 classes, got 0 .. 3"),
        (torch.tensor([[0], [1]]), r"labels must have the shape \(N,\), got \(2, 1\); give labels\[:, 0\]"),
        (torch.tensor([0]), r"got \(2, 3\) and \(1,\)"),
    ],
)
def test_a_loss_takes_no_labels_that_do_not_fit_its_logits(name: str, labels: Tensor, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LOSSES[name](torch.zeros(2, 3), labels)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"squared_error"}))  # torch's one_hot reads values
def test_a_loss_has_a_gradient_for_each_image_also_in_one_batch(name: str) -> None:
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4

    def loss(row: Tensor, label: Tensor) -> Tensor:
        return LOSSES[name](row[None], label[None])

    found = torch.func.vmap(torch.func.grad(loss))(logits, labels)
    expected = [torch.func.grad(loss)(*each) for each in zip(logits, labels, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "avg"])
def test_a_loss_has_no_other_reductions_than_its_mean_and_none(name: str, reduction: str) -> None:
    weights = {"class_weights": torch.ones(3)} if name in ("cross_entropy", "focal") else {}
    for options in ({}, weights):
        with pytest.raises(ValueError, match=r"reduction must be mean or none, .*; sum what reduction='none' returns"):
            LOSSES[name](torch.zeros(2, 3), torch.tensor([0, 1]), reduction=reduction, **options)


def test_hinge_refuses_soft_labels_and_their_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="hinge and crammer_singer take one label for each image"):
        make_loss("hinge")(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"soft labels must have the shape \(N, 3\), got \(2, 4\)"):
        check_labels(torch.full((2, 4), 0.25), 3)


def test_soft_labels_are_shares_that_add_up_to_1() -> None:
    for row in ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, -1.0, 0.0], [math.nan, 1.0, 0.0]):
        for loss in ("cross_entropy", "focal", "squared_error"):
            with pytest.raises(ValueError, match=r"add up to 1 in each row; several labels .* are not supported"):
                make_loss(loss)(torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 1.0], row]))
    shares = torch.rand(50, 100, generator=torch.Generator().manual_seed(0)).softmax(1)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        check_labels(shares.to(dtype), 100)


def test_the_logged_loss_is_the_mean_over_images_not_over_batches() -> None:
    metrics = StageMetrics(3)
    metrics.count("test", torch.ones(3), torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))
    metrics.count("test", torch.full((1,), 3.0), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    assert metrics.of("test")["test/loss"].compute() == 1.5


def poly(logits: Tensor, labels: Tensor, epsilon: float = 1.0, *, reduction: str = "mean") -> Tensor:
    log_p = -F.cross_entropy(logits, labels, reduction="none")
    losses = epsilon * (1 - log_p.exp()) - log_p
    return losses if reduction == "none" else losses.mean()


class Poly(nn.Module):
    def __init__(self, epsilon: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.epsilon, self.reduction = epsilon, reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return poly(logits, labels, self.epsilon, reduction=self.reduction)


def weighed(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, *, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(logits, labels, class_weights, reduction=reduction)


def half(logits: Tensor, labels: Tensor) -> Tensor:
    return 0.5 * F.cross_entropy(logits, labels)


def averaged(logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(logits, labels)


class Learned(nn.Linear):
    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(2, 2)


HERE = poly.__module__
given: Any = partial  # with options that a loss does not have


@pytest.mark.parametrize(
    "given",
    [
        {"name": f"{HERE}.poly", "epsilon": 2.0},
        {"class_path": f"{HERE}.Poly", "init_args": {"epsilon": 2.0}},
        partial(poly, epsilon=2.0),
        partial(Poly, epsilon=2.0),
    ],
)
def test_a_loss_of_ones_own_is_a_function_or_a_class_and_is_saved_as_its_import_path(given: Any) -> None:
    model = cvcc_zoo.create("linear", num_classes=4, loss=given)
    assert model.hparams["loss"] in ({"name": f"{HERE}.{name}", "epsilon": 2.0} for name in ("poly", "Poly"))
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    for reduction in ("mean", "none"):
        expected = poly(logits, labels, 2.0, reduction=reduction)
        assert torch.allclose(model.loss(logits, labels, reduction=reduction), expected)


def test_losses_of_torch_and_functions_of_ours_are_taken_as_they_are() -> None:
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    loss = make_loss({"name": "torch.nn.MultiMarginLoss", "p": 2, "l2": 0.1})
    assert torch.allclose(loss(logits, labels), F.multi_margin_loss(logits, labels, p=2)) and loss.l2 == 0.1
    assert cvcc_zoo.create("linear", loss=hinge).hparams["loss"] == {"name": "hinge"}


def test_class_weights_weigh_the_mean_of_a_loss_that_takes_them() -> None:
    logits, labels, weights = torch.randn(6, 3), torch.arange(6) % 3, [1.0, 2.0, 5.0]
    own, ours = (make_loss({"name": name, "class_weights": weights}) for name in (f"{HERE}.weighed", "cross_entropy"))
    assert torch.allclose(own(logits, labels), ours(logits, labels))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (half, "has no parameter `reduction`.*; add it, or write a function"),
        (LabelSmoothingCrossEntropy, "has no parameter `reduction`"),
        (given(poly, epsilom=2), "no option of loss .*poly named 'epsilom'; did you mean epsilon"),
        (given(Poly, epsilom=2), "no option of loss .*Poly named 'epsilom'; did you mean epsilon"),
        (given(poly, epsilon="much"), "epsilon must be a number, got 'much'"),
        (given(poly, class_weights=[1.0] * 10), "no option of loss .*poly named 'class_weights'"),
        (given(nn.CrossEntropyLoss, class_weights=[1.0] * 10), "no option of loss .* named 'class_weights'"),
        (given(nn.CrossEntropyLoss, weight=[1.0] * 10), "CrossEntropyLoss cannot be built with"),
        (averaged, r"averaged must return the loss of each image .* \(4,\), but it returns a tensor \(\)"),
        (Learned, "Learned has parameters, which nothing would train"),
        (3, "a class, a function or a functools.partial, not 3"),
        (lambda logits, labels: 0, "<lambda> has no import path"),
        ("os.system", "os.system is not a valid loss: make it a function"),
        (f"{HERE}.pol", "no loss at the import path"),
    ],
)
def test_what_is_no_loss_is_told(loss: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cvcc_zoo.create("linear", loss=loss).loss(torch.zeros(4, 10), torch.arange(4))


def test_the_kind_of_an_option_is_checked_for_every_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "poly", poly)
    with pytest.raises(ValueError, match="loss poly: epsilon must be a number, got 'much'"):
        make_loss({"name": "poly", "epsilon": "much"})


def test_a_loss_of_ones_own_says_whether_it_takes_soft_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert takes_soft_labels("torch.nn.CrossEntropyLoss") and not takes_soft_labels(f"{HERE}.poly")
    monkeypatch.setattr(poly, "soft_labels", True, raising=False)
    assert takes_soft_labels(f"{HERE}.poly")


def test_a_run_with_a_loss_of_ones_own_is_resumed_and_its_weights_do_not_need_the_module(
    fit: Fit, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = inspect.getsource(poly).replace(": Tensor", "").replace(" -> Tensor", "")
    (tmp_path / "my_losses.py").write_text(f"import torch.nn.functional as F\n\n{source}")
    monkeypatch.syspath_prepend(tmp_path)
    assert fit("--model=linear", "--model.loss=my_losses.poly", "--model.loss.epsilon=2", "--run=run") == 0
    assert cvcc_zoo.load("run").hparams["loss"] == {"name": "my_losses.poly", "epsilon": 2}
    more = ["--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", "--run=run", *more]) == 0
    (tmp_path / "my_losses.py").unlink()
    del sys.modules["my_losses"]
    assert main(["evaluate", "run"]) == 0
    assert main(["predict", "run", str(colours / "test/red/000.png")]) == 0
    words = ["test", "--ckpt_path=run/last.ckpt", "--data.dataset=folder", f"--data.root={colours}"]
    assert "cvcc-zoo --import=my_losses" in message(capsys, words)
    assert "no loss at the import path 'my_losses.poly'" in message(capsys, ["test", "--run=run"])


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_of_torch_for_other_targets_is_told_in_words() -> None:
    loss = make_loss("torch.nn.MSELoss")
    with pytest.raises(ValueError, match=r"loss torch.nn.MSELoss does not take logits \(4, 10\) and labels \(4,\)"):
        loss(torch.randn(4, 10), torch.arange(4))
