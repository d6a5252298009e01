"""What a user chose is kept, whatever the order in which it was written; what is drawn is recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import _get_rank

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.arguments import owners_first, parse, rewrite
from cvcc_zoo.cli.choices import CLUSTERS
from cvcc_zoo.cli.dotted import nested, spelt_out
from cvcc_zoo.cli.expansion import load_yaml, path_of
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.cli.options import parser
from cvcc_zoo.zoo.catalogue import architecture
from tests.conftest import Fit, message


def quick(**options: Any) -> Trainer:
    """A trainer that writes nothing."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **{"max_epochs": 1, **silent, **options})


def folder(colours: Path, **options: Any) -> ImageDataModule:
    return ImageDataModule("folder", root=str(colours), **{"batch_size": 8, **options})


def linear(**options: Any) -> Any:
    return create("linear", num_classes=2, image_size=8, **options)


def config(run: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(run, "config.yaml").read_text())
    return found


@pytest.mark.parametrize("asked", ["true", "false"])
def test_a_drawn_seed_is_recorded_so_that_the_config_repeats_the_run(fit: Fit, asked: str) -> None:
    assert fit("--model=linear", f"--seed_everything={asked}", "--run=a") == 0
    assert main(["fit", "--config=a/config.yaml", "--run=b"]) == 0
    first, second = (load(f"{run}/last.ckpt").state_dict() for run in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    seed = config("a")["seed_everything"]
    assert type(seed) is int and seed > 1 and json.loads(Path("a/summary.json").read_text())["seed"] == seed
    assert fit("--model=linear", f"--seed_everything={asked}", "--run=c") == 0
    assert config("c")["seed_everything"] != seed


def test_the_seed_of_a_summary_is_that_of_the_run_although_another_one_has_begun(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in another thread of the process."""
    monkeypatch.setattr("cvcc_zoo.runs.summary.commit", lambda: monkeypatch.setenv("PL_GLOBAL_SEED", "5"))
    assert fit("--model=linear", "--seed_everything=7", "--run=run", "--test=false") == 0
    assert json.loads(Path("run/summary.json").read_text())["seed"] == 7


def test_several_processes_do_not_each_draw_a_seed(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert fit("--model=linear", "--seed_everything=true") == 2
    assert "give a number: --seed_everything=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec", [{"name": "SGD", "momentum": 0.9}, {"name": "RMSprop", "momentum": 0.5}, {"name": "Adam"}]
)
@pytest.mark.parametrize("schedule", ["OneCycleLR", {"name": "CyclicLR", "base_lr": 1e-3, "max_lr": 1e-2}])
def test_a_schedule_leaves_the_momentum_as_it_was_chosen(colours: Path, spec: Any, schedule: Any) -> None:
    seen = set()

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            group = trainer.optimizers[0].param_groups[0]
            seen.add(str(group.get("betas", group.get("momentum"))))

    model = linear(optimizer={"lr": 0.01, **spec}, lr_scheduler=schedule)
    quick(callbacks=[Watch()], max_epochs=2).fit(model, folder(colours))
    assert seen == {str(spec.get("momentum", (0.9, 0.999)))}


def test_a_momentum_is_cycled_where_that_is_asked_for(colours: Path) -> None:
    schedule = {"name": "OneCycleLR", "cycle_momentum": True}
    trainer = quick()
    trainer.fit(linear(optimizer={"name": "SGD", "lr": 0.1, "momentum": 0.9}, lr_scheduler=schedule), folder(colours))
    assert trainer.optimizers[0].param_groups[0]["momentum"] > 0.92


def test_files_come_before_flags_and_names_before_their_options() -> None:
    words = ["fit", "--optimizer.lr", "0.5", "--model.loss.l2=1", "--model.depth=26", "--trainer.max_epochs=3",
             "--model.loss=hinge", "--data.augmentations+=Cutout", "--data.augmentations=light", "--optimizer=SGD",
             "--model", "ResNet", "--config=a.yaml", "--trainer.max_epochs=4"]  # fmt: skip
    assert owners_first(words) == [
        "fit", "--config=a.yaml", "--optimizer=SGD", "--model", "ResNet", "--model.loss=hinge",
        "--data.augmentations=light", "--optimizer.lr", "0.5", "--model.loss.l2=1", "--model.depth=26",
        "--trainer.max_epochs=3", "--data.augmentations+=Cutout", "--trainer.max_epochs=4",
    ]  # fmt: skip


def test_the_options_of_an_evaluation_replace_those_of_the_run_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    run = [f"--config={tmp_path}/config.yaml", f"--ckpt_path={tmp_path}"]
    more = ["--data.root=other", "--ckpt_path=a.ckpt"]
    for words in ([f"--run={tmp_path}", *more], [*more, "--run", str(tmp_path)], [str(tmp_path), *more]):
        assert rewrite(words, "test") == [*run, *more]


def test_the_options_of_whitening_may_stand_before_its_name() -> None:
    options = ['--data.whitening={"name": "zca"}', "--data.whitening.eps=0.1"]
    assert rewrite(["--data.whitening.eps=0.1", "--data.whitening=zca"]) == options


def test_options_written_before_their_name_or_file_are_kept(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("optimizer: {name: AdamW, lr: 0.001}\nmodel: linear\n")
    flags = ["--optimizer.lr=0.5", "--model.depth=26", "--model.shortcut=A", "--lr_scheduler.warmup=2"]
    owners = ["--model=ResNet", "--optimizer=SGD", "--lr_scheduler=Cosine", "--config=recipe.yaml"]
    assert fit(*flags, *owners, "--trainer.limit_train_batches=3", "--trainer.max_epochs=2", "--run=run") == 0
    hparams = load("run").hparams
    assert hparams["optimizer"] == {"name": "SGD", "lr": 0.5}
    assert hparams["lr_scheduler"] == {"name": "Cosine", "warmup": 2}
    assert (hparams["depth"], hparams["shortcut"]) == (26, "A")


def test_the_whitening_is_the_one_that_model_or_data_chose(colours: Path) -> None:
    for mine, theirs, taken in (("none", None, "none"), (None, "none", "none"), (None, None, "standardize")):
        model = linear(whitening=mine)
        quick(limit_train_batches=1).fit(model, folder(colours, whitening=theirs))
        spec = model.hparams["whitening"]
        assert (spec if isinstance(spec, str) else spec["name"]) == taken and model.whitening.fitted
    with pytest.raises(ValueError, match="choose one of them"):
        quick().fit(linear(whitening="none"), folder(colours, whitening="standardize"))


def test_steps_are_a_length_like_epochs(fit: Fit) -> None:
    options = ["--model=linear", "--trainer.max_epochs=null", "--lr_scheduler=Cosine", "--data.batch_size=4"]
    assert fit(*options, "--trainer.max_steps=100", "--run=run") == 0  # nine steps an epoch: more than ten epochs
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["steps"], summary["epochs"]) == (100, 12) and config("run")["trainer"]["max_epochs"] == -1


@pytest.mark.parametrize(
    ("length", "steps"), [({"max_steps": 7, "max_epochs": -1}, 7), ({"max_steps": 7}, 5), ({"max_steps": 3}, 3)]
)
def test_a_schedule_ends_with_whichever_length_ends_first(colours: Path, length: Any, steps: int) -> None:
    rates: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = linear(optimizer={"name": "SGD", "lr": 1.0}, lr_scheduler="Linear")
    quick(callbacks=[Watch()], **length).fit(model, folder(colours, validation=0))
    assert rates == pytest.approx([1 - step / steps for step in range(steps)])


def test_small_images_first_take_their_share_of_a_training_in_steps(colours: Path) -> None:
    sizes = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            sizes.append(batch[0].shape[-1])

    data = folder(colours, validation=0, image_size=16, progressive_resizing={8: 0.5})
    model = create("resnet20", num_classes=2, image_size=16)
    quick(callbacks=[Watch()], max_epochs=-1, max_steps=10, limit_val_batches=0).fit(model, data)
    assert sizes == [8] * 5 + [16] * 5  # two epochs of five steps


def test_the_batches_of_overfitting_are_the_same_and_validated(colours: Path) -> None:
    seen: dict[str, list[tuple[int, ...]]] = {"train": [], "val": []}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen["train"].append(tuple(batch[0].sum((1, 2, 3)).tolist()))

        def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
            seen["val"].append(tuple(batch[0].sum((1, 2, 3)).tolist()))

    trainer = quick(overfit_batches=2, max_epochs=3, callbacks=[Watch()], num_sanity_val_steps=0)
    trainer.fit(linear(), folder(colours, augmentations="none"))
    assert seen["train"] == seen["val"] and len(seen["train"]) == 6 and len(set(seen["train"])) == 2


def test_a_run_that_is_finished_says_so_and_nothing_of_it_changes(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss",
            "--trainer.callbacks.patience=1", "--optimizer.lr=0", "--trainer.max_epochs=9"]  # fmt: skip
    again = ["--model=linear", *stop, "--run=run", "--ckpt_path=last"]
    assert fit(*again) == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    assert json.loads(before["summary.json"])["epochs"] == 2  # the first is the best, and one more is waited for
    capsys.readouterr()
    for _ in range(2):
        assert fit(*again) == 0
        assert "The run run is already finished, and nothing in it was changed" in capsys.readouterr().out
        assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before
    Path("run/summary.json").unlink()  # as if it was killed while it tested
    assert fit(*again) == 0
    after = json.loads(Path("run/summary.json").read_text())
    assert after["steps"] == json.loads(before["summary.json"])["steps"]
    assert Path("run/last.ckpt").read_bytes() == before["last.ckpt"]
    assert fit(*again, "--trainer.callbacks.patience=3", "--allow_changes=true") == 0
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 4


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("optimizer", "SGD", "write --optimizer=..."),
        ("lr_scheduler", "Step", "write --lr_scheduler=..."),
        ("whitening", "zca", "write --data.whitening=..."),
        ("num_classes", "100", "takes its num_classes from the images: leave model.num_classes out"),
        ("in_channels", "1", "--data.in_channels=... changes the images"),
        ("image_size", "16", "--data.image_size=... changes the images"),
    ],
)
def test_an_option_of_the_model_that_comes_from_elsewhere_is_not_ignored(
    option: str,
    value: str,
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert advice in message(capsys, ["fit", "--model=linear", f"--model.{option}={value}"])
    assert advice in message(capsys, ["fit", "--model=linear", f"--model.init_args.{option}", value])
    for model in ("--model={class_path: linear, init_args: {%s: %s}}", "--model.init_args={%s: %s}"):
        assert advice in message(capsys, ["fit", model % (option, value)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"model": {"class_path": "linear", "init_args": {option: value}}}))
    assert advice in message(capsys, ["fit", f"--config={recipe}"])
    for options in ({"init_args": {option: value}}, {option: value}):
        recipe.write_text(yaml.safe_dump({"model": options}))
        assert advice in message(capsys, ["fit", f"--config={recipe}"])
    recipe.write_text(yaml.safe_dump({f"model.{option}": value}))
    assert advice in message(capsys, ["fit", f"--config={recipe}"])


def test_an_option_with_a_dot_in_a_file_is_one_of_its_group() -> None:
    both = spelt_out("data.batch_size: 64\ndata: {validation: 0.2}")
    assert load_yaml(both) == {"data": {"batch_size": 64, "validation": 0.2}}
    beside = {"optimizer": "SGD", "optimizer.lr": 0.1, "data": {"whitening.eps": 0.1, "whitening": "zca", 0.5: 3}}
    assert nested(beside) == {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "data": {"whitening": {"eps": 0.1, "name": "zca"}, 0.5: 3},
    }
    assert load_yaml('{"model.version": "3", "test": null}') == {"model.version": "3", "test": None}  # of one flag
    model = {"class_path": "ResNet", "init_args": {"depth": 26, "norm": "none"}}
    assert nested({"model.class_path": "ResNet", "model.init_args": {"norm": "none"}, "model.init_args.depth": 26}) == {
        "model": model
    }
    classes = {"model": {"init_args": {"loss": {"class_weights": {"a.b": 2.0}}}}, "a.b": 2.0}
    assert nested(classes) == classes
    with pytest.raises(ValueError, match="batch_size occurs twice, with a dot and without; write it once"):
        nested({"data": {"batch_size": 64}, "data.batch_size": 32})


@pytest.mark.parametrize(("name", "dropout"), [("fcnn", 0.2), ("FCNN", 0.2), ("cnn_small", 0.0), ("cnn.cifar10", 0.3)])
def test_a_model_that_is_named_has_its_own_dropout(name: str, dropout: float) -> None:
    Path("other.yaml").write_text("model: {class_path: cnn, init_args: {dropout: 0.7}}")
    for before in ([], ["--config=other.yaml"]):
        config = parse(parser("fit"), rewrite([*before, f"--model={name}"], "fit"))
        assert config.model.init_args.dropout == dropout


@pytest.mark.parametrize("text", ["model: {norm: none}", "model: {init_args: {norm: none}}", "model.norm: none"])
def test_a_model_that_is_named_gets_the_options_of_a_file_for_any_model(text: str) -> None:
    Path("any.yaml").write_text(text)
    Path("named.yaml").write_text("model: linear")
    for words in (["--config=any.yaml", "--model=cnn_small"], ["cnn_small", "--config=any.yaml"]):
        config = parse(parser("fit"), rewrite(words, "fit"))
        assert config.model.init_args.norm == "none" and config.model.init_args.channels == [32, 64, 128]
    Path("of_one.yaml").write_text("model: {depth: 26}")
    deep = parse(parser("fit"), rewrite(["ResNet", "--config=any.yaml", "--config=of_one.yaml"], "fit"))
    assert deep.model.init_args.depth == 26 and deep.model.init_args.norm == "none"
    last = parse(parser("fit"), rewrite(["cnn_small", "--config=any.yaml", "--model.norm=layer"], "fit"))
    assert last.model.init_args.norm == "layer"
    other = parse(parser("fit"), rewrite(["cnn_small", "--config=any.yaml", "--config=named.yaml"], "fit"))
    assert other.model.init_args.norm == "batch"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: 3", "trainer has no options; indent them below it, or leave it out"),
        ("data: 3", "data has no options; indent them below it, or leave it out"),
        ("trainer: {num_nodes: }", "trainer.num_nodes is null; give it a value, or leave it out"),
        ("model:\nseed_everything: 1", "model has no value; give it one, or leave it out"),
        ("test:\nseed_everything: 1", "test has no value; give it one, or leave it out"),
        ("trainer:", "a file of options has lines such as `name: value`, and this one has no value"),
    ],
)
def test_what_has_no_value_in_a_file_is_told(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("options.yaml").write_text(text)
    assert said in message(capsys, ["fit", "--config=options.yaml"])


def test_a_group_whose_options_are_all_commented_out_has_its_defaults() -> None:
    Path("options.yaml").write_text("model: linear\ntrainer:\n#  max_epochs: 3\ndata:\n")
    made = parse(parser("fit"), rewrite(["--config=options.yaml"], "fit"))
    assert made.trainer == parser("fit").parse_args([]).trainer and made.data.batch_size == 128


def test_none_is_no_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("none", "None", "null"):
        assert rewrite([f"--lr_scheduler={word}"], "fit") == ["--lr_scheduler=null"]
        assert load_yaml(f"lr_scheduler: {word}\nrun: x")["lr_scheduler"] is None
    for word in ("no", "1"):
        assert "null for none" in message(capsys, ["fit", f"--lr_scheduler={word}"])


def test_a_seed_of_the_data_is_refused_in_a_file_as_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("seed.yaml").write_text("data: {seed: 3}")
    advice = "write --seed_everything=... (in a file seed_everything: ...), and leave data.seed out"
    assert advice in message(capsys, ["fit", "--config=seed.yaml"])
    assert "data.seed" in message(capsys, ["fit", "--data.seed=3"])
    assert main(["augmentations", "--data.seed=3", "--images=1", "--draws=1"]) == 0  # which has no other seed


@pytest.mark.parametrize("command", ["test", "validate"])
def test_nothing_is_evaluated_without_trained_weights(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--model=linear", "--data.whitening=none"]):
        assert "no trained weights are given; name a run (--run=FOLDER)" in message(capsys, [command, *more])


def test_a_training_by_the_clock_has_no_other_end(
    colours: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    clock = ["fit", "--model=linear", "--trainer.accelerator=cpu", "--trainer.max_time=00:00:00:02", *data]
    assert "also if you set max_time: the run ends at whichever comes first" in message(capsys, clock)
    assert main([*clock, "--lr_scheduler=null", "--run=a"]) == 0
    assert config("a")["trainer"]["max_epochs"] == -1
    assert json.loads(Path("a/summary.json").read_text())["epochs"] > 10


def test_several_machines_are_not_waited_for_where_nothing_starts_them(
    colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in CLUSTERS:
        monkeypatch.delenv(name, raising=False)
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "OMPI_COMM_WORLD_SIZE"):  # no rank, without a Trainer
        monkeypatch.setenv(name, "1")
    assert "would wait for the other machines" in message(capsys, ["fit", "--model=linear", "--trainer.num_nodes=2"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_starts_several_machines_tells_lightning_which_process_this_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (*CLUSTERS, "LOCAL_RANK"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "3")
    assert _get_rank() == 3


@pytest.mark.parametrize(
    ("text", "flags", "chosen"),
    [
        ("{}", ["--model.loss.l2=0.001"], {"loss": {"name": "cross_entropy", "l2": 0.001}}),
        ("{}", ["--model=linear", "--model.loss.l2", "0.001"], {"loss": {"name": "cross_entropy", "l2": 0.001}}),
        ("{}", ["--model.loss.l2=0.1", "--model.loss=hinge"], {"loss": {"name": "hinge", "l2": 0.1}}),
        ("{loss: hinge}", ["--model.loss.l2=0.1"], {"loss": {"name": "hinge", "l2": 0.1}}),
        ("{loss: hinge}", ["--model.init_args.loss.l2=0.1"], {"loss": {"name": "hinge", "l2": 0.1}}),
        ("{}", ["--model.init_args.loss.l2", "1", "--model.loss=hinge"], {"loss": {"name": "hinge", "l2": 1}}),
        ("{loss: {name: hinge, margin: 2}}", ["--model.loss.l2=1"], {"loss": {"name": "hinge", "margin": 2, "l2": 1}}),
        ("{loss: {l2: 0.5}}", [], {"loss": {"name": "cross_entropy", "l2": 0.5}}),
        ("{}", ["--data.whitening=zca", "--data.whitening.eps=1"], {"whitening": {"name": "zca", "eps": 1}}),
        ("{ridge: validation, loss: squared_error}", ["--model.ridge.grid=[1, 2]"],
         {"ridge": {"name": "validation", "grid": [1, 2]}}),
    ],
)  # fmt: skip
def test_options_alone_belong_to_what_is_chosen_in_a_file_or_by_default(
    colours: Path, text: str, flags: list[str], chosen: dict[str, Any]
) -> None:
    Path("options.yaml").write_text(f"model: {{class_path: linear, init_args: {text}}}")
    files = [] if text == "{}" else ["--config=options.yaml"]
    built = build([f"--data.root={colours}", "--trainer.accelerator=cpu", *files, *flags])
    assert {name: built.model.hparams[name] for name in chosen} == chosen


@pytest.mark.parametrize(
    ("files", "flags", "name", "chosen"),
    [
        (["model.loss: hinge", "model.loss.l2: 0.1"], [], "loss", {"name": "hinge", "l2": 0.1}),
        (["model.loss: hinge", "model.loss: {l2: 0.1}"], ["--model.loss.margin=2"], "loss",
         {"name": "hinge", "l2": 0.1, "margin": 2}),
        (["model: {class_path: linear, init_args: {loss: {class_path: hinge}}}", "model.loss.l2: 0.1"], [], "loss",
         {"name": "hinge", "l2": 0.1}),
        (["model.loss: hinge", "model.loss: focal", "model.loss.gamma: 1"], [], "loss", {"name": "focal", "gamma": 1}),
        (["model.loss: hinge", "model.loss.l2: 0.1"], ["--model.loss=focal"], "loss", {"name": "focal"}),
        (["model.loss: hinge"], ["--model.loss.l2=0.1"], "loss", {"name": "hinge", "l2": 0.1}),
        (["model.loss: hinge"], ["--model.loss={l2: 0.1}"], "loss", {"name": "hinge", "l2": 0.1}),
        ([], ["--config={model: {loss: hinge}}", "--model.loss.l2=0.1"], "loss", {"name": "hinge", "l2": 0.1}),
        ([], ["--config", "data: {whitening: zca}", "--data.whitening.eps=0.5"], "whitening",
         {"name": "zca", "eps": 0.5}),
        ([], ["--data", "beside.yaml", "--data.whitening.eps=0.5"], "whitening", {"name": "zca", "eps": 0.5}),
        (["model.loss: squared_error"], ["--model.ridge=leave_one_out", "--model.ridge.grid=[1, 10]"], "ridge",
         {"name": "leave_one_out", "grid": [1, 10]}),
        ([], ["--model=ridge", "--model.ridge.grid=[1, 10]"], "ridge", {"name": "leave_one_out", "grid": [1, 10]}),
        (["data.whitening: zca", "data.whitening.eps: 0.5"], [], "whitening", {"name": "zca", "eps": 0.5}),
        (["optimizer: SGD", "optimizer.lr: 0.5"], ["--optimizer.momentum=0.9"], "optimizer",
         {"name": "SGD", "lr": 0.5, "momentum": 0.9}),
        (["optimizer: {name: SGD, lr: 1}", "optimizer: {lr: 0.5}"], [], "optimizer", {"name": "SGD", "lr": 0.5}),
        (["lr_scheduler: Cosine", "lr_scheduler.warmup: 0.2"], [], "lr_scheduler", {"name": "Cosine", "warmup": 0.2}),
    ],
)  # fmt: skip
def test_options_of_a_file_belong_to_what_a_file_before_it_names(
    colours: Path, files: list[str], flags: list[str], name: str, chosen: dict[str, Any]
) -> None:
    Path("beside.yaml").write_text("whitening: zca")
    for number, text in enumerate(files):
        Path(f"{number}.yaml").write_text(text)
    given = ["--model=linear", *(f"--config={number}.yaml" for number in range(len(files))), *flags]
    assert build([f"--data.root={colours}", "--trainer.accelerator=cpu", *given]).model.hparams[name] == chosen


def test_what_is_printed_as_config_is_the_same_run_again(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hinge.yaml").write_text("{model.loss: hinge, data.whitening: zca}")
    added = ["--model.loss.l2=0.1", "--data.whitening.eps=0.5"]
    with pytest.raises(SystemExit):
        main(["fit", "--model=linear", "--config=hinge.yaml", *added, "--print_config"])
    Path("printed.yaml").write_text(capsys.readouterr().out)
    built = build([f"--data.root={colours}", "--trainer.accelerator=cpu", "--config=printed.yaml"])
    assert built.model.hparams["loss"] == {"name": "hinge", "l2": 0.1}
    assert built.model.hparams["whitening"] == {"name": "zca", "eps": 0.5}


def test_options_of_an_optimizer_that_no_file_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rate.yaml").write_text("optimizer.lr: 0.5")
    assert "optimizer {'lr': 0.5} has no name" in message(capsys, ["fit", "--model=linear", "--config=rate.yaml"])


def test_a_whitening_of_a_file_keeps_its_name_when_an_option_is_added(colours: Path) -> None:
    Path("zca.yaml").write_text("data: {whitening: zca}")
    words = [f"--data.root={colours}", "--trainer.accelerator=cpu", "--config=zca.yaml"]
    built = build([*words, "--data.whitening.eps=1"])
    assert built.model.hparams["whitening"] == {"name": "zca", "eps": 1} == built.datamodule.whitening


def test_an_option_alone_is_that_of_a_training(fit: Fit) -> None:
    assert fit("--model=linear", "--model.loss.l2=0.001", "--run=run") == 0
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["model"]["init_args"]["loss"] == {"name": "cross_entropy", "l2": 0.001}


def test_a_command_that_looks_at_data_keeps_the_name_in_its_file_too(colours: Path) -> None:
    Path("zca.yaml").write_text("whitening: zca")
    words = ["whitening", f"--data.root={colours}", "--data=zca.yaml", "--images=2"]
    assert main([*words, "--data.whitening.eps=0.1"]) == 0


def test_a_class_path_on_the_command_line_is_kept_under_its_name_so_that_the_run_goes_on(fit: Fit) -> None:
    optimizer = ["--optimizer={class_path: SGD, init_args: {lr: 0.1}}", "--optimizer.momentum=0.9"]
    loss = ["--model.loss", "{class_path: hinge, init_args: {margin: 2}}", "--model.loss.l2=0.1"]
    assert fit("--model=linear", *optimizer, *loss, "--run=a") == 0
    assert config("a")["optimizer"] == {"name": "SGD", "lr": 0.1, "momentum": 0.9}
    assert load("a").hparams["loss"] == {"name": "hinge", "margin": 2, "l2": 0.1}
    assert main(["fit", "--config=a/config.yaml", "--ckpt_path=last"]) == 0


def test_a_class_path_in_a_file_is_not_taken_for_options_without_a_name(colours: Path) -> None:
    Path("hinge.yaml").write_text("model: {class_path: linear, init_args: {loss: {class_path: hinge}}}")
    built = build([f"--data.root={colours}", "--trainer.accelerator=cpu", "--config=hinge.yaml"])
    assert built.model.hparams["loss"] == {"name": "hinge"}


def test_what_stands_beside_a_class_path_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    advice = "optimizer has lr beside class_path, where it is lost; write {name: SGD, lr: ...}"
    assert advice in message(capsys, ["fit", "--optimizer={class_path: SGD, lr: 0.1}"])
    Path("sgd.yaml").write_text("optimizer: {class_path: SGD, lr: 0.1}")
    assert advice in message(capsys, ["fit", "--config=sgd.yaml"])
    advice = "has loss beside class_path, where it is lost; write model: {class_path: NAME, init_args: {loss: ...}}"
    Path("hinge.yaml").write_text("model: {class_path: resnet20, loss: hinge}")
    assert advice in message(capsys, ["fit", "--config=hinge.yaml"])
    Path("list.yaml").write_text("model: {class_path: resnet20, init_args: [loss]}")
    assert "init_args of model are options by name" in message(capsys, ["fit", "--config=list.yaml"])


@pytest.mark.parametrize(
    ("model", "family", "options"),
    [
        ("{class_path: FCNN, init_args: {hidden: [64]}}", "FCNN", {"hidden": [64]}),
        ('{"class_path": "ResNet", "init_args": {"depth": 14}}', "ResNet", {"depth": 14}),
        ("{class_path: cvcc_zoo.models.cnn.CNN}", "CNN", {}),
    ],
)
def test_a_model_with_options_in_braces_has_no_option_of_the_model_before_it(
    model: str, family: str, options: dict[str, Any]
) -> None:
    made = parse(parser("fit"), rewrite([f"--model={model}"], "fit")).model
    wanted = architecture(create(family, **options).hparams)
    assert made.class_path == path_of(family) and architecture(made.init_args.as_dict()) == wanted
    again = parse(parser("fit"), rewrite(["--model=plain20", "--model", model], "fit")).model
    assert architecture(again.init_args.as_dict()) == wanted


def test_braces_change_options_of_the_model_before_them_and_must_be_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--model={init_args: {depth: 26}}"], ["--model.init_args", "{depth: 26}"]):
        made = parse(parser("fit"), rewrite(["--model=plain20", *more], "fit")).model
        assert (made.init_args.depth, made.init_args.shortcut) == (26, "none")
    said = message(capsys, ["fit", "--model={class_path: ResNet, init_args: {depth: 26}"])
    assert "--model is not valid YAML" in said and len(said.strip().splitlines()) == 1


def test_a_run_that_a_file_names_is_looked_for_in_the_working_folder(fit: Fit, colours: Path) -> None:
    assert fit("--model=linear", "--test=false", "--run=pre") == 0
    Path("recipes").mkdir()
    words = [f"--data.root={colours}", "--data.dataset=folder", "--trainer.accelerator=cpu"]
    for name, weights in (("pre", "pre"), ("pre/last.ckpt", "pre/last.ckpt"), ("{class_path: ./pre}", "pre")):
        Path("recipes/tuned.yaml").write_text(f"model: {name}")
        built = build([*words, "--config=recipes/tuned.yaml"])
        assert built.config.weights == weights
        mine, before = (model.state_dict()["network.fc.weight"] for model in (built.model, load(weights)))
        assert torch.equal(mine, before)


@pytest.mark.parametrize("model", ["linear", "{class_path: linear, init_args: {freeze: 0}}"])
def test_a_model_without_weights_takes_away_those_of_a_model_or_file_before_it(model: str) -> None:
    Path("tuned.yaml").write_text("{model: linear.cifar10}")
    Path("other.yaml").write_text(f"model: {model}")
    Path("whole.yaml").write_text("{model: {class_path: cvcc_zoo.models.linear.Linear}, weights: mine}")
    Path("alone.yaml").write_text("{weights: mine}")  # weights that came without a model, as those of --weights
    Path("none.yaml").write_text("{weights: null}")
    flag, tuned = f"--model={model}", ["--config=tuned.yaml"]
    for words, weights in (
        (["--config=alone.yaml", flag], "mine"),
        ([flag, "--config", "alone.yaml"], "mine"),
        (["--config=alone.yaml", "--model=linear.cifar10"], "linear.cifar10"),
        (["--config=alone.yaml", "--config=other.yaml"], "mine"),
        (["--config=other.yaml", "--config=alone.yaml"], "mine"),
        (["--config=alone.yaml", "--config=other.yaml", flag], "mine"),
        (["--config=alone.yaml", *tuned], "linear.cifar10"),
        (["--config=alone.yaml", *tuned, "--config=other.yaml"], "mine"),
        (["--config=alone.yaml", "--config=none.yaml", flag], None),
        (["--config=alone.yaml", "--config=none.yaml", "--config=other.yaml"], None),
        (["--config=alone.yaml", "--config=other.yaml", "--weights=its"], "its"),
        (tuned, "linear.cifar10"),
        ([*tuned, "--model.init_args={freeze: 0}"], "linear.cifar10"),
        ([*tuned, flag], None),
        (["--model=linear.cifar10", flag], None),
        ([*tuned, "--config=other.yaml"], None),
        (["--config=whole.yaml"], "mine"),
        (["--config=whole.yaml", flag], None),
        (["--weights=mine", flag, *tuned], "mine"),
        (["--weights", "mine", "--model=linear.cifar10"], "mine"),
        ([flag, "--model=linear.cifar10"], "linear.cifar10"),
    ):
        assert parse(parser("fit"), rewrite(words, "fit")).weights == weights, words
    assert parse(parser("test"), rewrite([*tuned, flag], "test")).weights is None
