"""YAML and flags become objects here, and only here: `fit`, `validate`, `test` and `predict` by LightningCLI."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.checkpoint import Checkpoint, read_checkpoint
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.notices import quiet
from cvcc_zoo.parsing import ZooParser, expand_args, install_yaml
from cvcc_zoo.registry import FAMILIES
from cvcc_zoo.runs import (
    ProgressBar,
    RunFolder,
    StopAtSignal,
    WholeCheckpoints,
    folder_to_resume,
    new_folder,
    print_summary,
    write_predictions,
)
from cvcc_zoo.zoo import architecture, describe, name_of, use_weights

DEFAULT_MODEL = "cnn_small"
DEFAULT_OPTIMIZER = {"name": "AdamW", "lr": 0.004, "weight_decay": 0.05}
DEFAULT_SCHEDULE = {"name": "OneCycleLR"}
DEFAULT_TRAINER = {"max_epochs": 10, "use_distributed_sampler": False}


class ZooCLI(LightningCLI):
    """LightningCLI with models, optimizers and schedules by name, and a run folder for every training."""

    run_folder: RunFolder | None = None
    checkpoint: Checkpoint | None = None
    resumed: Path | None = None  # the folder of the run that goes on
    more_callbacks: Sequence[Callback] = ()

    def add_arguments_to_parser(self, parser: Any) -> None:
        """What belongs to neither model, data nor trainer."""
        family, options = describe(DEFAULT_MODEL)
        parser.set_defaults({"model": {"class_path": _path(family), "init_args": options}})
        parser.add_argument(
            "--optimizer",
            type=dict[str, Any],
            default=DEFAULT_OPTIMIZER,
            help="Name of an optimizer of this package (`cvcc-zoo optimizers` shows them), of torch or of timm "
            "(timm.lamb), or an import path; its options as --optimizer.lr=0.1. Norms and biases are decayed only with "
            "--optimizer.decay_norms_and_biases=true.",
        )
        parser.add_argument(
            "--lr_scheduler",
            type=dict[str, Any] | None,
            default=DEFAULT_SCHEDULE,
            help="Name of a schedule of this package (Step, QuarterCosine, Cosine, Linear, OneCycle, WSD) or of torch, "
            "or null; its options as --lr_scheduler.warmup=0.1. Its length and the max_lr of OneCycleLR are filled in; "
            "interval is step or epoch.",
        )
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="fit: the new folder of this run (default: runs/<model>-<dataset>, numbered). "
            "Others: the run folder whose config and best checkpoint are taken.",
        )
        parser.add_argument(
            "--weights",
            type=str | None,
            default=None,
            help="Weights to start from: a name of `cvcc-zoo list --pretrained`, the path of a card, a run folder or a "
            "checkpoint. --model=resnet20.cifar10 sets both. The classifier is new where the classes are others.",
        )
        parser.link_arguments("optimizer", "model.init_args.optimizer")
        parser.link_arguments("lr_scheduler", "model.init_args.lr_scheduler")
        parser.link_arguments("data.whitening", "model.init_args.whitening")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        for name in ("num_classes", "in_channels", "image_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Expand names before jsonargparse sees them."""
        self.config = parser.parse_args(expand_args(args))

    def _parse_ckpt_path(self) -> None:
        """Evaluation builds the model that the checkpoint holds, unless another one was asked for.

        Lightning would let the checkpoint override the command line silently, for `fit` too.
        """
        command = self.config.subcommand
        config = self.config[command]
        if config.ckpt_path is None:
            return
        if command == "fit":
            if config.ckpt_path == "last":
                self.resumed = folder_to_resume([Path(str(file)) for file in config.config or []])
                config.ckpt_path = self.resumed / "last.ckpt"
            config.ckpt_path = str(read_checkpoint(config.ckpt_path).path)
            return
        checkpoint = read_checkpoint(config.ckpt_path)
        self.checkpoint = checkpoint
        parser = self._parser(command)
        if _asked(config.model) == _asked(parser.parse_args([]).model):
            kept = {name: checkpoint.hparams.get(name) for name in ("loss", "patch_whitening")}
            options = {**architecture(checkpoint.hparams), **kept}
            model = {"class_path": _path(checkpoint.family), "init_args": options}
            self.config = self.parser.parse_object({command: {"model": model}}, self.config)
        self.config[command].ckpt_path = None  # we load it, so that no callback of the training is asked for

    def after_instantiate_classes(self) -> None:
        """Put weights into the model: those that a training starts from, or of the checkpoint that is evaluated."""
        weights = self._get(self.config, "weights")
        if weights is not None:
            new = use_weights(self.model, weights, self.datamodule.classes)
            if new and self.subcommand != "fit":
                raise ValueError(
                    f"the weights {weights} were trained on other classes than those of {self.datamodule.dataset.title}"
                    "; `cvcc-zoo fit` with them trains a new classifier"
                )
            rank_zero_info(f"Starts from the weights {weights}, with {'a new' if new else 'their'} classifier")
        if self.checkpoint is not None:
            self.model.use_whitening(self.checkpoint.hparams["whitening"])
            self.model.check_same(self.checkpoint.family, self.checkpoint.hparams)
            self.model.load_state_dict(self.checkpoint.state)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """`fit` gets a run folder, unless logging is off or it is a `fast_dev_run`."""
        options = self._get(self.config_init, "trainer")
        if self.subcommand != "fit":
            return super().instantiate_trainer(logger=False, callbacks=self._callbacks(), **kwargs)
        if options.logger is False or options.fast_dev_run:
            saves = bool(options.enable_checkpointing)
            return super().instantiate_trainer(callbacks=self._callbacks(), enable_checkpointing=saves, **kwargs)
        self.run_folder = RunFolder(
            self.resumed or self._new_folder(),
            self._config_text(),
            choose_logging=options.log_every_n_steps is None,
            resumed=self.resumed is not None,
        )
        mine = self.run_folder.callbacks(
            validation=self.datamodule.validation > 0, checkpoints=options.enable_checkpointing is not False
        )
        loggers = [] if options.logger is True else _list_of(options.logger)
        plugins = _list_of(options.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        return super().instantiate_trainer(
            logger=[self.run_folder.logger(), *loggers],
            callbacks=[*self._callbacks(), StopAtSignal(), *mine],
            plugins=plugins,
            **kwargs,
        )

    def _callbacks(self) -> list[Callback]:
        """The user's callbacks, and our progress bar unless one is among them or bars are off."""
        options = self._get(self.config_init, "trainer")
        chosen = [*_list_of(options.callbacks), *self.more_callbacks]
        bars = options.enable_progress_bar is not False and not options.barebones
        if bars and not any(isinstance(callback, LightningProgressBar) for callback in chosen):
            chosen.append(ProgressBar())
        return chosen

    def _new_folder(self) -> Path:
        model = name_of(type(self.model).__name__, self.model.hparams)
        parent = self._get(self.config, "trainer").default_root_dir or "runs"
        name = f"{model}-{self.datamodule.dataset.title}"
        return new_folder(self._get(self.config, "run"), Path(parent).expanduser(), name)

    def _config_text(self) -> str:
        """The whole config, so that `fit --config` of it repeats the run in a new folder."""
        config = self.config.fit.clone()
        config.run = None
        config.ckpt_path = None
        return f"# cvcc-zoo fit --config config.yaml\n{self._parser('fit').dump(config, skip_unset=False)}"

    def after_fit(self) -> None:
        """Test the chosen checkpoint and print one table."""
        if self.trainer.interrupted or self._get(self.config, "trainer").fast_dev_run:
            return
        if self.run_folder is None:
            self.trainer.test(self.model, self.datamodule)
        else:
            summary = self.run_folder.finish(self.trainer, self.model, self.datamodule)
            if self.trainer.is_global_zero:
                print_summary(summary, self.run_folder.folder)

    def predict(self, model: ImageClassifier, **kwargs: Any) -> None:
        """Write `predictions-<dataset>.csv` beside the checkpoint: a line for each test image, in order."""
        batches = self.trainer.predict(model, **kwargs)
        assert batches is not None
        folder = self.checkpoint.path.parent if self.checkpoint else Path()
        target = folder / f"predictions-{self.datamodule.dataset.title}.csv"
        probabilities, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        write_predictions(target, probabilities, labels, self.datamodule.classes)
        print(f"{len(labels):,} predictions written to {target}")


def _list_of(value: Any) -> list[Any]:
    """What the trainer takes as one, as several or as None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _path(family: str) -> str:
    return f"{FAMILIES[family].__module__}.{family}"


def _asked(model: Any) -> tuple[str, dict[str, Any]]:
    """A model's class and options, without the whitening, which is linked to that of the data."""
    return model.class_path, {key: value for key, value in vars(model.init_args).items() if key != "whitening"}


def main(args: Sequence[str], callbacks: Sequence[Callback] = ()) -> int:
    """Run a Lightning command. Raises what went wrong, after removing the run folder if nothing is in it.

    `callbacks` come to those of the arguments, and are no part of the run's config.
    """
    install_yaml()
    quiet()
    cli = ZooCLI.__new__(ZooCLI)
    cli.more_callbacks = callbacks
    # Only the parser of this command is built: each takes half a second.
    cli.subcommands = lambda: {args[0]: LightningCLI.subcommands()[args[0]]}  # type: ignore[method-assign]
    try:
        cli.__init__(  # type: ignore[misc]
            ImageClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=DEFAULT_TRAINER,
            parser_class=ZooParser,
            parser_kwargs={"prog": "cvcc-zoo", args[0]: {"usage": f"cvcc-zoo {args[0]} [options]"}},
            args=list(args),
        )
    except BaseException:
        if cli.run_folder is not None:
            cli.run_folder.discard_if_empty()
        raise
    return 0
