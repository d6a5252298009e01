"""Imbalanced classes: a sampler, class weights and the focal loss, and the line that names them."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning import Trainer
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

import cvcc_zoo
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.classifier.weighting import batch_mean, resolve_class_weights
from cvcc_zoo.data.balance import BalancedOrder, imbalance
from cvcc_zoo.data.loader import Position, TensorLoader
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.losses import loss_spec, make_loss
from cvcc_zoo.runs import RunFolder
from cvcc_zoo.weights.checkpoint import read_checkpoint
from tests.conftest import QUICK, Fit, MakeFolder, message, write_images
from tests.test_choices import quick

LABELS = torch.tensor([0] * 30 + [1] * 5 + [2] * 2)


def drawn(epoch: int, labels: Tensor = LABELS, seed: int = 0) -> Tensor:
    order = BalancedOrder(labels, seed)
    order.set_epoch(epoch)
    return order.order()


@pytest.fixture
def skewed() -> Path:
    """An image folder with 40 training images of a cat, 4 of a dog, and 4 of each to test."""
    root = Path("skewed").absolute()
    for split, cats, dogs in (("train", 40, 4), ("test", 4, 4)):
        for name, count in (("猫", cats), ("dog", dogs)):
            write_images(root / split / name, count, seed=count)
    return root


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_a_balanced_epoch_is_as_long_and_draws_each_class_equally_often(epoch: int) -> None:
    counts = Counter(LABELS[drawn(epoch) % len(LABELS)].tolist())
    assert sum(counts.values()) == len(LABELS) and set(counts.values()) == {12, 13}
    whole = Counter(LABELS[drawn(number) % len(LABELS)].tolist()[0] for number in range(300))
    assert min(whole.values()) > 60  # the order is shuffled: any class may come first


def test_no_image_is_drawn_again_before_all_others_of_its_class() -> None:
    seen = torch.cat([drawn(epoch) % len(LABELS) for epoch in range(9)]).bincount(minlength=len(LABELS))
    for label in range(3):
        times = seen[label == LABELS]
        assert times.max() - times.min() <= 1


def test_each_repetition_in_an_epoch_has_a_number_of_its_own_and_so_its_own_augmentation() -> None:
    order = drawn(3)
    assert len(torch.unique(order)) == len(order)
    rare = order[LABELS[order % len(LABELS)] == 2]
    assert sorted((rare // len(LABELS)).tolist()) in ([0, 0, *range(1, 6), *range(1, 6)], sorted([*range(6)] * 2 + [6]))


def test_the_balanced_order_depends_on_seed_and_epoch_alone() -> None:
    assert torch.equal(drawn(2), drawn(2)) and not torch.equal(drawn(2), drawn(3))
    assert not torch.equal(drawn(2), drawn(2, seed=1))


def batches(**options: Any) -> list[list[int]]:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(-1, 1, 8, 8)
    labels = torch.tensor([1] * 3 + [0] * 37)
    loader = TensorLoader(images, labels, torch.arange(2, 40), 8, shuffle_seed=5, balanced=True, **options)
    loader.sampler.set_epoch(4)  # type: ignore[union-attr]
    found = list(loader)
    assert all(torch.equal(labels[b.images[:, 0, 0, 0].long()], b.labels) for b in found)
    assert all(torch.equal(b.samples % 40, b.images[:, 0, 0, 0].long()) for b in found)
    return [batch.samples.tolist() for batch in found]


def test_processes_share_balanced_batches_and_a_resumed_epoch_continues_them() -> None:
    alone = batches()
    assert len(alone) == 4 and sum(sample % 40 == 2 for batch in alone for sample in batch) > 12
    two = [batches(rank=rank, world_size=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*two, strict=True)] == [sorted(batch) for batch in alone]
    position = Position()
    position.epoch, position.batches = 4, 2
    assert batches(position=position) == alone[2:]


def test_a_balanced_run_with_mixing_and_smaller_images_resumes_with_the_same_bits(
    skewed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["fit", "--model=ResNet", "--model.depth=8", "--data.dataset=folder", f"--data.root={skewed}", *QUICK[1:]]
    train += ["--trainer.max_epochs=2", "--data.batch_size=8", "--data.image_size=16", "--data.sampler=balanced"]
    train += ["--data.augmentations=[RandomCrop, MixUp]", "--data.progressive_resizing={8: 0.5}", "--test=false"]
    train += ["--model.loss.class_weights={猫: 0.5}", "--checkpoint_minutes=1e-9"]
    assert main([*train, "--run=whole"]) == 0
    count = RunFolder.on_train_batch_end

    def killed_here(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (1, 2):
            raise RuntimeError("killed")
        count(run, trainer, *args)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed_here)
        main([*train, "--run=killed"])
    assert main(["fit", "--config=killed/config.yaml", "--ckpt_path=last", QUICK[1]]) == 0
    whole, killed = (cvcc_zoo.load(run).state_dict() for run in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert Path("whole/metrics.csv").read_text() == Path("killed/metrics.csv").read_text()


def test_a_balanced_run_repeats_its_first_batches_to_overfit_them(skewed: Path) -> None:
    data = cvcc_zoo.ImageDataModule(root=str(skewed), batch_size=8, sampler="balanced", augmentations="none")
    model = cvcc_zoo.create("linear", num_classes=2, image_size=8, optimizer={"name": "SGD", "lr": 0.0})
    trainer = quick(max_epochs=2, overfit_batches=2)
    trainer.fit(model, data)
    order: Any = trainer.train_dataloader
    order.sampler.set_epoch(1)
    labels = torch.cat([batch.labels for batch in order])
    assert 12 <= int(labels.sum()) <= 20  # of 32: cats and dogs are drawn equally often


def test_a_model_that_is_solved_at_once_takes_no_sampler(skewed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--model=ridge", f"--data.root={skewed}", "--data.sampler=balanced", *QUICK]
    assert "reads every image once; leave out --data.sampler=balanced" in message(capsys, words)


LOGITS = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TRUE = torch.randint(3, (64,), generator=torch.Generator().manual_seed(1))
WEIGHTS = [0.5, 1.0, 4.0]
LISTED = "--model.loss.class_weights=[1, 5]"


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_weighted_cross_entropy_of_labels_is_torch_s(reduction: Any) -> None:
    loss = make_loss({"name": "cross_entropy", "class_weights": WEIGHTS})
    theirs = F.cross_entropy(LOGITS, TRUE, torch.tensor(WEIGHTS, dtype=torch.float64), reduction=reduction)
    torch.testing.assert_close(loss(LOGITS, TRUE, reduction=reduction), theirs)


@pytest.mark.parametrize(
    "spec", [{"name": "cross_entropy"}, {"name": "cross_entropy", "label_smoothing": 0.2}, {"name": "focal"}]
)
@pytest.mark.parametrize("soft", [False, True])
def test_the_weight_of_an_image_is_the_mean_of_those_of_its_classes(spec: dict[str, Any], soft: bool) -> None:
    labels = LOGITS.roll(1, 0).softmax(1) if soft else TRUE
    plain, loss = make_loss(spec), make_loss({**spec, "class_weights": WEIGHTS})
    shares = labels if soft else F.one_hot(TRUE, 3).double()
    weights = shares @ torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = plain(LOGITS, labels, reduction="none") * weights
    torch.testing.assert_close(loss(LOGITS, labels, reduction="none"), expected)
    torch.testing.assert_close(loss(LOGITS, labels), expected.sum() / weights.sum())


@pytest.mark.parametrize(
    ("labels", "label_smoothing"), [(torch.tensor([0]), 0.2), (torch.tensor([[0.9, 0.1]], dtype=torch.float64), 0.0)]
)
def test_weights_leave_the_best_prediction_for_a_smoothed_or_mixed_label(
    labels: Tensor, label_smoothing: float
) -> None:
    weights = [44 / (2 * 40), 44 / (2 * 4)]  # balanced
    loss = make_loss({"name": "cross_entropy", "label_smoothing": label_smoothing, "class_weights": weights})
    logits = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log().requires_grad_()
    for reduction in ("mean", "none"):
        (gradient,) = torch.autograd.grad(loss(logits, labels, reduction=reduction).sum(), logits)
        assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("soft", [False, True])
def test_the_focal_loss_with_gamma_0_is_the_cross_entropy(weights: list[float] | None, soft: bool) -> None:
    labels = LOGITS.roll(1, 0).softmax(1) if soft else TRUE
    for reduction in ("mean", "none"):
        focal, plain = (
            make_loss({"name": name, "class_weights": weights, **more})(LOGITS, labels, reduction=reduction)
            for name, more in (("focal", {"gamma": 0}), ("cross_entropy", {}))
        )
        torch.testing.assert_close(focal, plain)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_and_its_gradients_are_those_of_its_definition(gamma: float) -> None:
    p = LOGITS.softmax(1).gather(1, TRUE[:, None]).squeeze(1)
    loss = make_loss({"name": "focal", "gamma": gamma})
    torch.testing.assert_close(loss(LOGITS, TRUE), ((1 - p) ** gamma * -p.log()).mean())
    assert torch.autograd.gradcheck(lambda logits: loss(logits, TRUE), LOGITS.clone().requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_an_image_that_is_classified_with_certainty_has_a_focal_loss_and_gradients_of_0(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = make_loss({"name": "focal", "gamma": gamma})(logits, torch.tensor([0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0 and logits.grad is not None and not logits.grad.any()


def test_the_focal_loss_of_two_classes_is_torchvision_s_of_one_sigmoid() -> None:
    logits, labels = LOGITS[:, :2], TRUE % 2
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.double(), alpha=-1, gamma=2)
    torch.testing.assert_close(make_loss("focal")(logits, labels, reduction="none"), theirs)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    found = resolve_class_weights("balanced", ["a", "b", "c"], LABELS)
    assert found == pytest.approx([37 / (3 * 30), 37 / (3 * 5), 37 / (3 * 2)])
    sklearn = pytest.importorskip("sklearn.utils.class_weight", reason="needs the extra bench")
    theirs = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    assert found == pytest.approx(theirs)


def test_weights_by_name_are_in_the_order_of_the_classes_and_the_others_weigh_1() -> None:
    assert resolve_class_weights({"Sea_Lion": 3, "猫": 2}, ["dog", "sea lion", "猫"], LABELS) == [1, 3, 2]
    with pytest.raises(ValueError, match="no class in class_weights named 'dgo'; did you mean dog"):
        resolve_class_weights({"dgo": 3}, ["dog", "cat"], LABELS)
    with pytest.raises(ValueError, match="class_weights=balanced needs training images of every class, and 'd' has"):
        resolve_class_weights("balanced", ["a", "b", "c", "d"], LABELS)


def test_names_that_differ_only_in_signs_have_no_other_spelling() -> None:
    assert resolve_class_weights({"CD4+": 3}, ["CD4+", "CD4-", "CD8"], LABELS) == [3, 1, 1]
    for name in ("CD4", "cd4+"):
        with pytest.raises(ValueError, match=f"no class in class_weights named '{re.escape(name)}'"):
            resolve_class_weights({name: 3}, ["CD4+", "CD4-", "CD8"], LABELS)


def test_names_that_yaml_reads_as_something_else_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert loss_spec({"name": "focal", "class_weights": yaml.safe_load("{no: 2, 01: 3, null: 4, 1.5: 5}")}) == {
        "name": "focal",
        "class_weights": {"False": 2, "1": 3, "None": 4, "1.5": 5},
    }
    classes = ["1.0", "no", "01", "null", "[x: y"]
    chosen = {"False": 2, "1": 3, "None": 4, "1.0": 5, "[x: y": 6}
    assert resolve_class_weights(chosen, classes, LABELS) == [5, 2, 3, 4, 6]
    for given in ("[yes, no]", "[1, 2]", "[a[1], b]", "a,b", "[null, x]"):
        found = message(capsys, ["fit", f"--data.classes={given}"])
        assert "--data.classes takes a list of names, and not " in found and found.count("\n") <= 1
        assert """quote each name: --data.classes='["no", "a, b"]'""" in found


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, 2], "class_weights has 2 numbers, but there are 3 classes"),
        ([1, 2, 0], "class_weights must be numbers above 0, not 0"),
        ("{a: b: 2}", "quote names with commas, brackets, colons or quotes"),
        ({"a": None}, """not None; quote names with commas"""),
        ({"a": "much"}, "class_weights must be numbers above 0, not 'much'"),
        ([1, 2, float("nan")], "numbers above 0, not nan"),
        ("equal", "class_weights are balanced, a list of numbers in the order of the classes"),
    ],
)
def test_wrong_class_weights_are_told(weights: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cvcc_zoo.create("linear", num_classes=3, loss={"name": "focal", "class_weights": weights})


def test_losses_without_class_weights_and_weights_without_images_are_told() -> None:
    with pytest.raises(ValueError, match="no option of loss hinge named 'class_weights'"):
        make_loss({"name": "hinge", "class_weights": [1, 2]})
    with pytest.raises(ValueError, match="class_weights='balanced' become numbers when training with an ImageData"):
        make_loss({"name": "focal", "class_weights": "balanced"})(LOGITS, TRUE)


def test_a_step_has_the_gradient_of_the_weighted_mean() -> None:
    loss = make_loss({"name": "focal", "class_weights": WEIGHTS})
    for labels in (TRUE, LOGITS.roll(1, 0).softmax(1)):
        mean = batch_mean(loss(LOGITS, labels, reduction="none"), labels, loss, None)
        torch.testing.assert_close(mean, loss(LOGITS, labels))


@pytest.mark.parametrize("labels", [TRUE, LOGITS.roll(1, 0).softmax(1)], ids=["labels", "soft labels"])
@pytest.mark.parametrize("size", [1.0, 1e-8, 1e8])
def test_the_logged_loss_is_the_weighted_mean_over_all_batches(labels: Tensor, size: float) -> None:
    loss = make_loss({"name": "cross_entropy", "class_weights": [size * weight for weight in WEIGHTS]})
    metrics = StageMetrics(3, weighted=True)
    for part in (slice(0, 10), slice(10, 64)):
        losses, weights = loss.scaled(loss(LOGITS[part], labels[part], reduction="none"), labels[part])
        metrics.count("val", losses, LOGITS[part], labels[part], weights)
    assert float(metrics.of("val")["val/loss"].compute()) == pytest.approx(float(loss(LOGITS, labels)), abs=1e-6)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the run had more callbacks
def test_a_checkpoint_has_balanced_weights_as_numbers_and_needs_no_images_for_them(
    skewed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--data.root={skewed}", *QUICK, "--data.validation=0"]
    assert main(["fit", "--model=linear", "--model.loss.class_weights=balanced", *words, "--run=run"]) == 0
    expected = [44 / (2 * 4), 44 / (2 * 40)]
    loss = read_checkpoint("run").hparams["loss"]
    assert loss["name"] == "cross_entropy" and loss["class_weights"] == pytest.approx(expected)
    assert "class_weights: balanced" in Path("run/config.yaml").read_text()
    capsys.readouterr()
    assert main(["test", "--run=run"]) == 0
    test_loss = json.loads(Path("run/summary.json").read_text())["test_loss"]
    assert f"{test_loss:.6f}" in capsys.readouterr().out
    spec = {"name": "cross_entropy", "class_weights": "balanced"}
    again = cvcc_zoo.create("linear", num_classes=2, image_size=8, loss=spec)
    data = cvcc_zoo.ImageDataModule(root=str(skewed), validation=0)
    found = quick().test(again, data, ckpt_path="run/last.ckpt", weights_only=True, verbose=False)
    assert found[0]["test/loss"] == pytest.approx(test_loss)
    model = cvcc_zoo.load("run")
    images = torch.stack([torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 200)])
    logits, labels = model(images), torch.tensor([0, 1])
    weight = torch.tensor(expected)
    torch.testing.assert_close(model.loss(logits, labels), F.cross_entropy(logits, labels, weight))


def test_a_class_whose_name_begins_with_an_underscore_is_weighted(make_folder: MakeFolder) -> None:
    root = make_folder(classes=("_background", "red"))
    words = [f"--data.root={root}", *QUICK, "--model=linear", "--model.loss.class_weights={_background: 0.5}"]
    assert main(["fit", *words, "--run=run"]) == 0 and main(["test", "--run=run"]) == 0
    assert cvcc_zoo.load("run").hparams["loss"] == {"name": "cross_entropy", "class_weights": [0.5, 1.0]}
    assert "_background: 0.5" in Path("run/config.yaml").read_text()
    for called in ("os.system", ["os.system"], {"a": 1}):
        with pytest.raises(ValueError, match="which could run code and was ignored"):
            check_plain({"_background": called}, "the options")


def test_the_order_of_the_classes_of_a_checkpoint_is_that_of_the_weights(skewed: Path) -> None:
    spec = {"name": "focal", "class_weights": {"猫": 3.0}}
    data = cvcc_zoo.ImageDataModule(root=str(skewed), batch_size=8)
    model = cvcc_zoo.create("linear", num_classes=2, image_size=8, loss=spec)
    model.classes = ("猫", "dog")
    trainer = quick(max_epochs=1)
    trainer.fit(model, data)
    assert model.hparams["loss"] == {**spec, "class_weights": [3.0, 1.0]}
    trainer.save_checkpoint("first.ckpt")
    resumed = cvcc_zoo.create("linear", num_classes=2, image_size=8, loss=spec)  # which does not know the order
    data = cvcc_zoo.ImageDataModule(root=str(skewed), batch_size=8)
    quick(max_epochs=2).fit(resumed, data, ckpt_path="first.ckpt", weights_only=True)
    assert resumed.classes == ("猫", "dog") and resumed.hparams["loss"] == model.hparams["loss"]


def test_weights_balance_the_predictions_of_an_imbalanced_folder(skewed: Path) -> None:
    options: dict[str, Any] = {"root": str(skewed), "augmentations": "none", "batch_size": 44, "validation": 0.0}
    shares = []
    for loss in ("cross_entropy", {"name": "cross_entropy", "class_weights": "balanced"}):
        model = cvcc_zoo.create("linear", num_classes=2, image_size=8, loss=loss, optimizer={"name": "SGD", "lr": 1e-3})
        quick(max_epochs=1).fit(model, cvcc_zoo.ImageDataModule(**options))
        shares.append(model.network.state_dict()["fc.bias"])
    # One step from 0 moves the bias by the share of each class, minus a half.
    assert shares[0][1] > 1e-4 and shares[1].abs().max() < 1e-6


def test_a_line_names_the_largest_and_the_smallest_class_and_the_remedies(
    skewed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["fit", "--model=linear", f"--data.root={skewed}", *QUICK, "--data.validation=0", "--test=false"]
    line = "The classes are imbalanced: 40 training images of '猫' and 4 of 'dog'"
    remedies = ("--data.sampler=balanced", "--model.loss.class_weights=balanced", "--model.loss=focal")
    assert main([*words, "--run=plain"]) == 0
    assert caplog.text.count(line) == 1 and all(remedy in caplog.text for remedy in remedies)
    for number, remedy in enumerate(remedies):
        caplog.clear()
        assert main([*words, remedy, f"--run=run{number}"]) == 0
        assert "training images" in caplog.text and "imbalanced" not in caplog.text
    assert imbalance(torch.tensor([0] * 9 + [1]), ["a", "b"]) is None


def test_misspelt_samplers_and_losses_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no sampler named 'balance'; did you mean balanced" in message(capsys, ["fit", "--data.sampler=balance"])
    assert "did you mean focal" in message(capsys, ["fit", "--model.loss=focl"])


def test_a_class_that_yaml_cannot_read_has_a_weight_and_one_of_two_that_it_reads_alike_must_be_quoted() -> None:
    labels = torch.tensor([0, 1])
    assert resolve_class_weights({"...": 2}, ["...", "a"], labels) == [2.0, 1.0]
    assert resolve_class_weights({"no": 2}, ["no", "off"], labels) == [2.0, 1.0]
    with pytest.raises(ValueError, match="no class in class_weights named 'False'"):
        resolve_class_weights({"False": 2}, ["no", "off"], labels)  # {no: 2} without quotes


def test_balanced_weights_of_a_loaded_model_are_those_of_the_images_that_it_is_trained_on(skewed: Path) -> None:
    words = [f"--data.root={skewed}", *QUICK, "--model=linear", "--data.validation=0"]
    chosen = {"balanced": "balanced", "named": "{猫: 3}"}
    for run, weights in chosen.items():
        assert main(["fit", f"--model.loss.class_weights={weights}", *words, f"--run={run}"]) == 0
    others = Path("others")
    for name, count in (("猫", 5), ("dog", 15)):
        write_images(others / "train" / name, count, seed=count)
    data = cvcc_zoo.ImageDataModule(root=str(others), validation=0)
    assert main(["publish", "balanced", "--folder=cards", "--tag=x"]) == 0
    loaded = [cvcc_zoo.load(name) for name in ("balanced", "cards/linear.x.json")]
    for model in (*loaded, cvcc_zoo.create("balanced", optimizer="SGD")):
        assert model.hparams["loss"]["class_weights"] == pytest.approx([44 / 8, 44 / 80])
        trainer = quick()
        trainer.fit(model, data)
        assert model.hparams["loss"]["class_weights"] == pytest.approx([20 / 30, 20 / 10])
        trainer.save_checkpoint("again.ckpt")
        assert read_checkpoint("again.ckpt").class_weights == "balanced"
    for run, expected in (("named", [1.0, 3.0]), ("balanced", [7.0, 8.0])):
        options: dict[str, Any] = (
            {} if run == "named" else {"loss": {"name": "cross_entropy", "class_weights": [7.0, 8.0]}}
        )
        model = cvcc_zoo.create(run, **options) if options else cvcc_zoo.load(run)
        quick().fit(model, data)
        assert model.hparams["loss"]["class_weights"] == expected


def test_a_list_of_weights_is_not_given_to_classes_in_another_order(
    fit: Fit, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear", f"--data.root={make_folder('others', classes=('Red', 'blue'))}", "--run=old")
    told = message(capsys, ["fit", "--data.root=colours", *QUICK, "--weights=old", "--model=linear", LISTED])
    by_name = """--model.loss.class_weights='{"blue": 1, "red": 5}'"""
    assert (
        "the weights old/best.ckpt have the classes in another order than the images; give the numbers by name: "
        + by_name
        in told
    )
    (word,) = shlex.split(by_name)
    assert fit("--model=linear", "--weights=old", word, "--run=new") == 0
    model = cvcc_zoo.load("new")
    assert model.classes == ("Red", "blue") and model.hparams["loss"]["class_weights"] == [5.0, 1.0]
    assert fit("--model=linear", "--weights=new", LISTED, "--data.root=others", "--run=same") == 0
    assert cvcc_zoo.load("same").hparams["loss"]["class_weights"] == [1.0, 5.0]
