"""YAML and flags become objects here, and only here: `fit`, `validate`, `test` and `predict` by LightningCLI."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info

import cvcc_zoo.cli.choices as choices
import cvcc_zoo.runs as runs
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_model
from cvcc_zoo.cli.expansion import expand_args, install_yaml, path_of
from cvcc_zoo.cli.parsing import OneCommand, ZooParser, add_own_options, asked_model, list_of
from cvcc_zoo.data import ImageDataModule, check_test, in_order
from cvcc_zoo.printing.notices import quiet
from cvcc_zoo.weights.checkpoint import Checkpoint, read_checkpoint
from cvcc_zoo.zoo.catalogue import architecture, describe, name_of
from cvcc_zoo.zoo.creation import use_weights

DEFAULT_MODEL = "cnn_small"


class ZooCLI(OneCommand):
    """LightningCLI with models, optimizers and schedules by name, and a run folder for every training."""

    run_folder: runs.RunFolder | None = None
    checkpoint: Checkpoint | None = None
    resumed: Path | None = None  # the folder of the run that goes on
    more_callbacks: Sequence[Callback] = ()
    strategy: Strategy | None = None
    plugins: Sequence[Any] = ()
    starts = True  # False: build what the command would run, and run nothing
    command_parser: Any  # of the options of one command, without its name

    @property
    def chosen(self) -> Any:
        """The options of the command that runs."""
        return self.config[self.config.subcommand]

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Add the options that belong to neither model, data nor trainer."""
        self.command_parser = parser
        family, options = describe(DEFAULT_MODEL)
        parser.set_defaults({"model": {"class_path": path_of(family), "init_args": options}})
        add_own_options(parser, runs.MINUTES)
        choices.link_options(parser)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Expand names before jsonargparse sees them, read the checkpoint, and settle what was left open."""
        choices.check_owned(args)
        self.config = choices.parse(parser, expand_args(choices.owners_first(choices.name_as_option(args))))
        command = self.config.subcommand
        if self.chosen.ckpt_path is not None:
            self._read_checkpoint(command)
        before = runs.saved_config(self.resumed, self.checkpoint) if command == "fit" else None
        choices.settle(self.chosen, command, before, fresh=command != "fit" and self.checkpoint is None)

    def _read_checkpoint(self, command: str) -> None:
        """Read the checkpoint, and hide its path from Lightning, which would let it override the command line silently.

        Evaluation builds the model that the checkpoint holds, unless another one was asked for.
        """
        path, self.chosen.ckpt_path = self.chosen.ckpt_path, None
        if command == "fit" and path == "last":
            files = [Path(str(file)) for file in self.chosen.config or []]
            self.resumed = runs.folder_to_resume(self.chosen.run, files)
            path = runs.last_of(self.resumed)
        if path is None:
            return
        self.checkpoint = checkpoint = read_checkpoint(path)
        defaults = self.command_parser.parse_args([])
        if command != "fit" and asked_model(self.chosen.model) == asked_model(defaults.model):
            kept = {name: checkpoint.hparams.get(name) for name in ("loss", "patch_whitening")}
            options = {**architecture(checkpoint.hparams), **kept}
            model = {"class_path": path_of(checkpoint.family), "init_args": options}
            self.config = self.parser.parse_object({command: {"model": model}}, self.config)

    def before_instantiate_classes(self) -> None:
        """Let Lightning resume from the checkpoint. In evaluation we load it: no callback of the training is needed."""
        if self.checkpoint is not None and self.subcommand == "fit":
            self.chosen.ckpt_path = str(self.checkpoint.path)

    def after_instantiate_classes(self) -> None:
        """Put weights into the model: those that a training starts from, or of the checkpoint that is evaluated."""
        choices.check_launcher(self.trainer)
        if self.subcommand == "fit" and self.trainer.precision == "16-true":
            rank_zero_info(
                "precision=16-true trains weights of half precision, in which Adam's eps of 1e-8 is 0 and small steps "
                "are lost; 16-mixed and bf16-mixed keep whole ones"
            )
        if (weights := self.chosen.weights) is not None:
            if self.trainer.precision == "64-true":
                self.model.double()  # as Lightning will do, when digits would be lost already
            new = use_weights(self.model, weights, self.datamodule.classes)
            if new and self.subcommand != "fit":
                other = f"{weights} were trained on other classes than those of {self.datamodule.dataset.title}"
                raise ValueError(f"the weights {other}; `cvcc-zoo fit` with them trains a new classifier")
            rank_zero_info(f"Starts from the weights {weights}, with {'a new' if new else 'their'} classifier")
        self.model.allow_other_images = bool(self.chosen.allow_changes)
        if self.checkpoint is None:
            return
        self.model.classes = self.checkpoint.classes
        if self.subcommand != "fit":
            self.model.use_whitening(self.checkpoint.hparams["whitening"])
            check_model(self.model, self.checkpoint.family, self.checkpoint.hparams)
            self.model.load_state_dict(self.checkpoint.state)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """`fit` gets a run folder, unless it is a `fast_dev_run`; without a logger it has no metrics.csv."""
        options = self.config_init[self.subcommand].trainer
        if self.subcommand != "fit" or not self.starts:
            return super().instantiate_trainer(logger=False, callbacks=self._callbacks(), **kwargs)
        if options.fast_dev_run:
            kwargs["enable_checkpointing"] = bool(options.enable_checkpointing)
            return super().instantiate_trainer(callbacks=self._callbacks(), **kwargs)
        if self.chosen.test:
            check_test(self.datamodule.dataset)
        if self.checkpoint is not None:
            check_model(self.model, self.checkpoint.family, self.checkpoint.hparams)
        text, allowed = self.config_text(), self.chosen.allow_changes
        changed = runs.check_unchanged(runs.saved_config(self.resumed, self.checkpoint), text, allowed=allowed)
        if changed:
            rank_zero_info(f"Goes on with other options: {changed}")
        validates = self.datamodule.validation > 0 and options.limit_val_batches != 0
        best = runs.best_so_far(self.checkpoint, self.resumed, allowed=allowed) if validates else None
        if self.checkpoint is not None and self.resumed is not None and options.logger is not False:
            runs.check_metrics(self.resumed / runs.METRICS, self.checkpoint.metrics, allowed=allowed)
        ended = runs.has_ended(self.checkpoint, self.resumed, changed)
        self.run_folder = runs.RunFolder(
            self.resumed or self._new_folder(),
            text,
            choose_logging=options.log_every_n_steps is None,
            resumed=self.resumed is not None,
            ended=ended,
        )
        self.run_folder.begin(best)
        mine = self.run_folder.callbacks(
            validation=validates,
            checkpoints=options.enable_checkpointing is not False,
            minutes=self.chosen.checkpoint_minutes,
            logs=(logs := options.logger is not False),
        )
        more = list_of(None if options.logger is True else options.logger)
        return super().instantiate_trainer(
            logger=[self.run_folder.logger(), *more] if logs else False,
            callbacks=[*self._callbacks(), *([runs.UseChanges()] if changed else []), runs.StopAtSignal(), *mine],
            default_root_dir=self.run_folder.folder,  # where Lightning looks for, and leaves, SLURM's checkpoints
            plugins=runs.with_whole_checkpoints([*list_of(options.plugins), *self.plugins]),
            **kwargs | ({"strategy": self.strategy} if self.strategy else {}),
        )

    def _callbacks(self) -> list[Callback]:
        options = self.config_init[self.subcommand].trainer
        return runs.users_callbacks([*list_of(options.callbacks), *self.more_callbacks], options)

    def _new_folder(self) -> Path:
        model = name_of(type(self.model).__name__, self.model.hparams)
        parent = self.chosen.trainer.default_root_dir or "runs"
        name = f"{model}-{self.datamodule.dataset.title}"
        return runs.new_folder(self.chosen.run, Path(parent).expanduser(), name)

    def config_text(self) -> str:
        """The whole config, so that `fit --config` of it repeats the run in a new folder; else raises ValueError."""
        config = self.config.fit.clone()
        config.run = None
        config.ckpt_path = None
        config.allow_changes = False
        return choices.repeatable(f"{runs.HEADER}{self.command_parser.dump(config, skip_unset=False)}")

    def fit(self, model: ImageClassifier, **kwargs: Any) -> None:
        """Train, unless nothing is left to do."""
        if self.run_folder is not None and self.run_folder.complete(test=self.chosen.test):
            self.run_folder.report_complete()
            self.starts = False
        if self.starts:
            self.trainer.fit(model, **kwargs)

    def after_fit(self) -> None:
        """Test the chosen checkpoint, unless it is not wanted, and print one table."""
        if not self.starts or self.trainer.interrupted or self.chosen.trainer.fast_dev_run:
            return
        if self.run_folder is not None:
            test = self.chosen.test
            summary = self.run_folder.finish(self.trainer, self.model, self.datamodule, test=test)
            if self.trainer.is_global_zero:
                runs.print_summary(summary, self.run_folder.folder)

    def predict(self, model: ImageClassifier, **kwargs: Any) -> None:
        """Write `predictions-<dataset>.csv` beside the checkpoint: a line for each test image, in order."""
        batches = in_order(self.trainer.predict(model, **kwargs) or [])  # on every process
        if self.trainer.is_global_zero:
            runs.write_predictions(self.checkpoint.path.parent if self.checkpoint else Path(), batches, self.datamodule)


def main(
    args: Sequence[str],
    callbacks: Sequence[Callback] = (),
    strategy: Strategy | None = None,
    plugins: Sequence[Any] = (),
) -> int:
    """Run a Lightning command. Raises what went wrong, after removing the run folder if nothing is in it.

    `callbacks` and `plugins` come to those of the arguments, and `strategy` in place of theirs; none of them is part of
    the run's config.
    """
    cli = ZooCLI.__new__(ZooCLI)
    cli.more_callbacks, cli.strategy, cli.plugins = callbacks, strategy, plugins
    try:
        with runs.stopped_by_signals(), choices.told_in_one_line():
            _start(cli, args)
    except runs.StoppedError as stop:
        if cli.run_folder is None:
            raise
        raise runs.StoppedError(f"{stop}; {cli.run_folder.how_to_resume()}", stop.code) from stop
    finally:
        if cli.run_folder is not None:
            cli.run_folder.end()
    return 0


def build(args: Sequence[str]) -> ZooCLI:
    """Build what `fit` with these arguments would train; nothing is trained, and no file is written."""
    cli = ZooCLI.__new__(ZooCLI)
    cli.starts = False
    _start(cli, ["fit", *args])
    return cli


def _start(cli: ZooCLI, args: Sequence[str]) -> None:
    install_yaml()
    quiet()
    cli.subcommands = lambda: {args[0]: LightningCLI.subcommands()[args[0]]}  # type: ignore[method-assign]
    cli.__init__(  # type: ignore[misc]
        ImageClassifier,
        ImageDataModule,
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_callback=None,
        seed_everything_default=0,
        trainer_defaults={"use_distributed_sampler": False},
        parser_class=ZooParser,
        parser_kwargs={"prog": "cvcc-zoo", args[0]: {"usage": f"cvcc-zoo {args[0]} [options]"}},
        args=list(args),
    )
