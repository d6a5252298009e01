"""Optimizers and schedules on the command line, in YAML and in Python; what they cost; what can be watched."""

import csv
import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

import cvcc_zoo
from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.optim import Muon
from cvcc_zoo.optim.build import OWN, check_optimizer, make_optimizer
from cvcc_zoo.optim.cost import EXAMPLES, seconds_a_step, sides, state_share, with_gradients
from cvcc_zoo.runs import OptimizerMonitor
from tests.conftest import Fit, message

SPEC = {"name": "Muon", "lr": 0.02, "momentum": 0.9}
SCHEDULE = {"name": "QuarterCosine", "warmup": 0.5}


def last(run: str) -> dict[str, Tensor]:
    return load(Path("runs", run, "last.ckpt")).state_dict()


def test_flags_yaml_and_python_train_the_same_bit_for_bit(fit: Fit, colours: Path, tmp_path: Path) -> None:
    flags = ["--optimizer=Muon", "--optimizer.lr=0.02", "--optimizer.momentum=0.9"]
    assert fit("--model=cnn_small", *flags, "--lr_scheduler=QuarterCosine", "--lr_scheduler.warmup=0.5", "--run=a") == 0
    (tmp_path / "b.yaml").write_text(json.dumps({"model": "cnn_small", "optimizer": SPEC, "lr_scheduler": SCHEDULE}))
    assert fit("--config", str(tmp_path / "b.yaml"), "--run=b") == 0
    first, second = (load(Path(run, "last.ckpt")) for run in "ab")
    assert first.hparams["optimizer"] == second.hparams["optimizer"] == SPEC
    assert first.hparams["lr_scheduler"] == second.hparams["lr_scheduler"] == SCHEDULE
    trained = []
    ways: list[Any] = [SPEC, functools.partial(Muon, lr=0.02, momentum=0.9)]
    for optimizer in ways:
        torch.manual_seed(0)
        data = ImageDataModule("folder", str(colours), batch_size=16)
        model = create("cnn_small", num_classes=2, image_size=8, optimizer=optimizer, lr_scheduler=SCHEDULE)
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet).fit(model, data)
        trained.append(model.state_dict())
    same = [all(torch.equal(a[k], b[k]) for k in a) for a, b in ((first.state_dict(), second.state_dict()), trained)]
    assert same == [True, True]


def test_a_users_own_optimizer_is_found_by_its_import_path(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import torch

        class Fifth(torch.optim.SGD):
            def __init__(self, params, lr, divisor=5.0):
                super().__init__(params, lr / divisor)
    """
    (tmp_path / "my_optim.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    assert fit("--model=linear", "--optimizer=my_optim.Fifth", "--optimizer.lr=0.5", "--lr_scheduler=null") == 0
    with Path("runs/linear-colours/metrics.csv").open() as file:
        assert {row["lr-Fifth"] for row in csv.DictReader(file)} <= {"0.1", ""}
    assert load("runs/linear-colours").hparams["optimizer"] == {"name": "my_optim.Fifth", "lr": 0.5}


def test_a_name_that_a_module_imports_when_it_is_used_is_saved_as_the_path_where_it_is_defined(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_plug.py").write_text(
        "def __getattr__(name):\n    import plug_inside\n    return getattr(plug_inside, name)\n"
    )
    (tmp_path / "plug_inside.py").write_text(
        "import torch\n\nclass Lion(torch.optim.SGD):\n    pass\n\n"
        "class Steps(torch.optim.lr_scheduler.ConstantLR):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = ["--optimizer=lazy_plug.Lion", "--optimizer.lr=0.5", "--lr_scheduler=lazy_plug.Steps"]
    assert fit("--model=linear", *names, "--run=run", "--test=false") == 0
    hparams = load("run").hparams
    assert hparams["optimizer"] == {"name": "plug_inside.Lion", "lr": 0.5}
    assert hparams["lr_scheduler"] == {"name": "plug_inside.Steps"}


def test_weights_are_read_without_the_optimizer_schedule_and_loss_of_their_training(
    fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training, or what else needs them, says that this version does not know them."""
    assert fit("--model=linear", "--run=run", "--test=false") == 0
    for file in Path("run").glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        content["hyper_parameters"] |= {each: {"name": "Newer"} for each in ("optimizer", "lr_scheduler", "loss")}
        torch.save(content, file)
    assert main(["evaluate", "run"]) == 0
    assert main(["predict", "--ckpt_path=run/last.ckpt", "--data.dataset=folder", f"--data.root={colours}"]) == 0
    for model in (load("run"), create("run", num_classes=3)):
        assert model.hparams["optimizer"] == model.hparams["lr_scheduler"] == model.hparams["loss"] == {"name": "Newer"}
        with pytest.raises(ValueError, match="no optimizer named 'Newer'"):
            model.configure_optimizers()
        with pytest.raises(ValueError, match=r"with a loss that this version does not know .*'Newer'"):
            model.checked_loss()
    with pytest.raises(ValueError, match="no optimizer named 'Newest'"):
        create("run", optimizer={"name": "Newest"})


class Half(torch.optim.SGD):
    """Not registered anywhere."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr / 2)


def test_and_in_python_without_registration() -> None:
    for given in (Half, functools.partial(Half, lr=0.3)):
        model = create("linear", optimizer=given) if given is not Half else create("linear", optimizer=Half)
        spec = {"lr": 0.3, **model.hparams["optimizer"]}
        assert make_optimizer(spec, model).param_groups[0]["lr"] == 0.15


def test_an_optimizer_that_chooses_its_rate_needs_no_schedule(fit: Fit) -> None:
    options = ["--optimizer=timm.adafactor", "--lr_scheduler=null", "--trainer.log_every_n_steps=1", "--run=run"]
    assert fit("--model=linear", *options) == 0
    with Path("run/metrics.csv").open() as file:
        rates = [row["lr-Adafactor"] for row in csv.DictReader(file) if row["lr-Adafactor"]]
    assert len(rates) == 1 and float(rates[0]) > 0  # two steps, and before the first there is no rate


@pytest.mark.draws
def test_gradient_and_update_lengths_are_logged(fit: Fit) -> None:
    assert fit("--model=linear", "--trainer.callbacks+=OptimizerMonitor", "--trainer.log_every_n_steps=1") == 0
    with Path("runs/linear-colours/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/grad_norm"]]
    assert len(rows) == 2  # 36 images in batches of 16, without the last 4
    assert all(float(row["train/grad_norm"]) > 0 and 0 < float(row["train/update_ratio"]) <= 1 for row in rows)


@pytest.mark.draws
def test_never_logging_is_possible(fit: Fit) -> None:
    never = ["--trainer.log_every_n_steps=0", "--trainer.callbacks+=OptimizerMonitor"]
    assert fit("--model=linear", *never) == 0
    assert "train/grad_norm" not in Path("runs/linear-colours/metrics.csv").read_text()


def test_the_lengths_are_those_of_gradient_and_update() -> None:
    model = create("linear", num_classes=2, in_channels=1, image_size=8)
    logged: dict[str, float] = {}

    class Stub:
        def __init__(self) -> None:
            self.global_step, self.log_every_n_steps = 4, 5

    class Module(LightningModule):
        def log(self, name: str, value: Any, **_: Any) -> None:  # type: ignore[override]
            logged[name] = float(value)

    monitor, optimizer = OptimizerMonitor(), make_optimizer({"name": "SGD", "lr": 0.1}, model)
    for p in model.parameters():
        nn.init.constant_(p, 2.0)
        p.grad = torch.full_like(p, 3.0)
    monitor.on_before_optimizer_step(Stub(), Module(), optimizer)  # type: ignore[arg-type]
    optimizer.step()
    monitor.on_train_batch_end(Stub(), Module())  # type: ignore[arg-type]
    size = sum(p.numel() for p in model.parameters()) ** 0.5
    assert logged["train/grad_norm"] == pytest.approx(3 * size)
    assert logged["train/update_ratio"] == pytest.approx(0.3 / 1.7)


# What it costs


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("SGD", 1, 1), ("Adagrad", 1, 1.001), ("RMSprop", 1, 1.001), ("AdamW", 2, 2.002), ("Muon", 1, 1.02),
     ("Adafactor", 0.01, 0.05)],
)  # fmt: skip
def test_the_state_is_measured(name: str, least: float, most: float) -> None:
    optimizer = make_optimizer({"name": name, **EXAMPLES[name]}, with_gradients(create("resnet20").network))
    optimizer.step()
    assert least <= state_share(optimizer) <= most


@pytest.mark.parametrize("name", sorted(OWN))
def test_torchs_side_has_the_same_options(name: str) -> None:
    network = create("resnet20").network
    ours, *theirs = [make() for make in sides(name, EXAMPLES[name], network).values()]
    assert type(ours) is OWN[name] and seconds_a_step(ours) > 0
    assert len(theirs) == {"LowRankAdam": 0, "Muon": 1, "RMSprop": 2, "Adafactor": 2}.get(name, 3)
    for other in theirs:
        assert type(other).__module__.startswith("torch.optim")
        for a, b in zip(ours.param_groups, other.param_groups, strict=False):
            assert all(a[k] == b[k] for k in EXAMPLES[name])


def test_optimizers_prints_memory_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizers", "--model=resnet20", "--repeats=1"]) == 0
    printed = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in printed.splitlines() if line.count("│") > 5}
    assert set(OWN) <= set(rows)
    assert "2 x" in rows["AdamW"] and rows["LowRankAdam"].count("-") == 3
    assert "resnet20, 272,474 parameters" in printed and "Muon for matrices and filters" in printed


def test_a_model_without_hidden_layers_has_nothing_for_muon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizers", "--model=linear", "--repeats=1"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ Muon")]
    assert row.count("-") == 5


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["optimizers", "--model=resnet21"], "no model named 'resnet21'; did you mean resnet"),
        (["optimizers", "--repeats=0"], "repeats must be at least 1, got 0"),
        (["fit", "--model=linear", "--optimizer=Muon"], "Muon needs a trainable weight between the first and the last"),
        (["fit", "--optimizer=Moun"], "no optimizer named 'Moun'; did you mean Muon"),
        (["fit", "--optimizer=Muon", "--optimizer.rank=3"], "no option of optimizer Muon named 'rank'"),
        (["fit", "--optimizer=Muon", "--optimizer.ns_coefficients=quintic"], "ns_coefficients are three numbers or"),
        (
            ["fit", "--optimizer=Muon", "--optimizer.adjust_lr_fn=match"],
            "no adjust_lr_fn named 'match'; did you mean match_rms_adamw",
        ),
        (["fit", "--optimizer=AdamW", "--optimizer.betas=[0.9, 1.5]"], "betas must be in [0, 1), got [0.9, 1.5]"),
        (["fit", "--optimizer=LowRankAdam", "--optimizer.rank=0"], "rank must be a whole number of at least 1, got 0"),
        (["fit", "--optimizer=SGD", "--optimizer.nesterov=true"], "nesterov needs a momentum above 0"),
        (["fit", "--optimizer=SGD", "--optimizer.lr=fast"], "lr must be a number, got 'fast'"),
        (["fit", "--optimizer=timm.adafactor"], "has no lr; give --optimizer.lr=..., or --lr_scheduler=null"),
    ],
)
def test_wrong_input_is_answered_with_advice(
    arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice in message(capsys, arguments)


def test_a_class_of_a_module_in_the_current_folder_is_found_by_the_console_command(colours: Path) -> None:
    """Warnings may be errors."""
    Path("my_optimizers.py").write_text("import torch\n\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    program = "from cvcc_zoo.__main__ import main; raise SystemExit(main())"
    data = ["--data.dataset=folder", f"--data.root={colours}", "--trainer.max_epochs=1"]
    options = ["--model=linear", "--optimizer=my_optimizers.Mine", "--optimizer.lr=0.1", "--run=runs/mine", *data]
    root = str(Path(cvcc_zoo.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-P", "-c", program, "fit", *options]  # -P: the folder is not searched, as in a script
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "my_optimizers.Mine" in Path("runs/mine/config.yaml").read_text()


@pytest.mark.parametrize("value", ["n", "none", None, 0])
def test_only_true_decays_norms_and_biases(value: Any) -> None:
    spec = {"name": "SGD", "decay_norms_and_biases": value}
    for build in (check_optimizer, lambda spec: make_optimizer(spec, nn.Linear(1, 1))):
        with pytest.raises(ValueError, match="decay_norms_and_biases must be true or false, got"):
            build(spec)
