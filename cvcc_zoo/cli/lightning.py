"""`cvcc-zoo fit`, `validate`, `test` and `predict`: build model, data and trainer from YAML and flags, and run."""

from collections.abc import Sequence
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info

import cvcc_zoo.cli.choices as choices
import cvcc_zoo.runs as runs
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_model
from cvcc_zoo.classifier.hyperparameters import of_command
from cvcc_zoo.cli.arguments import parse, rewrite
from cvcc_zoo.cli.expansion import path_of
from cvcc_zoo.cli.options import GIVEN, asked_model, import_named, list_of, parser, settle_network
from cvcc_zoo.cli.refusals import check_text
from cvcc_zoo.cli.starting import start_from, tell_of_other_images
from cvcc_zoo.data import ImageDataModule, check_test, in_order
from cvcc_zoo.files.own import expanded, file_to_write
from cvcc_zoo.printing.notices import quiet
from cvcc_zoo.weights.checkpoint import Checkpoint, read_checkpoint
from cvcc_zoo.zoo.catalogue import architecture, name_of
from cvcc_zoo.zoo.names import resolve_trained


class ZooCLI(LightningCLI):
    """LightningCLI for one command, with models, optimizers and schedules by name, and a run folder for a training.

    The constructor parses `args` and builds model, data and trainer; `run` runs the command. The run folder is open
    until `opened` is closed; without `opened` no file is written, and there is nothing to run. `callbacks` and
    `plugins` are added to those of the options, and `strategy` replaces theirs; none of them is part of the run's
    config.
    """

    config: Any  # the options
    config_init: Any  # the options, with objects for those that name a class
    draws_seed: bool  # whether the seed was not given, but drawn

    def __init__(
        self,
        command: str,
        args: Sequence[str],
        opened: ExitStack | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        strategy: Strategy | None = None,
        plugins: Sequence[Any] = (),
    ) -> None:
        self.command, self.opened = command, opened
        self.more_callbacks, self.strategy, self.plugins = callbacks, strategy, plugins
        self.run_folder: runs.RunFolder | None = None
        self.checkpoint: Checkpoint | None = None
        self.resumed: Path | None = None  # the folder of the run that is resumed
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            auto_configure_optimizers=False,
            run=False,
            args=list(args),
        )

    def setup_parser(self, *args: Any) -> None:
        """Take the parser of the command, which is built once in a process."""
        self.parser: LightningArgumentParser = parser(self.command)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse the options, read the checkpoint, and settle seed and length."""
        self.config = parse(parser, rewrite(args, self.command))
        choices.check_training(self.config)
        import_named(self.config, self.command)
        if self.command == "fit":
            settle_network(self.config)
        if self.config.ckpt_path is not None:
            self._read_checkpoint()
        if self.config.weights is not None and self.checkpoint is None:
            resolve_trained(self.config.weights)  # a wrong name is refused before the images are read
        before = runs.saved_config(self.resumed, self.checkpoint) if self.command == "fit" else None
        self.draws_seed = isinstance(self.config.seed_everything, bool)
        choices.settle(self.config, self.command, before, fresh=self.command != "fit" and self.checkpoint is None)

    def _read_checkpoint(self) -> None:
        """Read the checkpoint. Evaluation builds the model that it holds, unless another one was asked for.

        Lightning reads it again to resume training. In evaluation we load it, which needs no callback of the training.
        """
        path, self.config.ckpt_path = self.config.ckpt_path, None
        if self.command == "fit" and path == "last":
            files = [Path(str(file)) for file in self.config.config or []]
            self.resumed = runs.folder_to_resume(self.config.run, files)
            path = runs.last_of(self.resumed)
        if path is None:
            return
        self.checkpoint = checkpoint = read_checkpoint(path)
        if self.command == "fit":
            self.config.ckpt_path = str(checkpoint.path)
            if self.config.weights is not None:  # from which it has its whitening
                self.config["model.init_args.whitening"] = checkpoint.hparams["whitening"]
        elif asked_model(self.config.model) == asked_model(self.parser.parse_args([]).model):
            kept = ("patch_whitening",) if self.command == "predict" else ("loss", "patch_whitening")
            options = {**architecture(checkpoint.hparams), **{name: checkpoint.hparams.get(name) for name in kept}}
            model = {"class_path": path_of(checkpoint.family), "init_args": options}
            self.config = self.parser.parse_object({"model": model}, self.config)

    def after_instantiate_classes(self) -> None:
        """Put weights into the model: those that a training starts from, or of the checkpoint that is evaluated."""
        choices.check_trainer(self.trainer, self.command)
        if (weights := self.config.weights) is not None and self.checkpoint is None:  # or it has its own
            if self.trainer.precision == "64-true":
                self.model.double()  # Lightning converts it only later, and copied weights would be rounded
            run = None if self.run_folder is None else self.config
            start_from(weights, self.model, self.datamodule, self.command, run)
        self.model.allow_other_images = bool(self.config.allow_changes)
        self.model.command_options = of_command(self.config.as_dict())
        if self.checkpoint is None:
            return
        self.model.classes = self.checkpoint.classes
        self.model.temperature = self.checkpoint.calibration.get("temperature", 1.0)
        self.model.seen_images = self.checkpoint.seen_images
        if self.command != "fit":
            self.model.use_whitening(self.checkpoint.hparams["whitening"])
            check_model(self.model, self.checkpoint.family, self.checkpoint.hparams)
            self.model.take_features(self.checkpoint.hparams)
            self.model.take_class_weights(self.checkpoint.hparams)
            self.model.load_state_dict(self.checkpoint.state)
            tell_of_other_images(self.checkpoint, self.model, self.datamodule, self.command)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer. `fit` gets a run folder, unless it is a `fast_dev_run`."""
        options = self.config_init.trainer
        users = runs.users_callbacks([*list_of(options.callbacks), *self.more_callbacks], options)
        if self.command != "fit" or self.opened is None:
            return super().instantiate_trainer(logger=False, callbacks=users, **kwargs)
        if options.fast_dev_run:
            saves = bool(options.enable_checkpointing)
            return super().instantiate_trainer(callbacks=users, enable_checkpointing=saves, **kwargs)
        if self.config.test:
            check_test(self.datamodule.dataset)
        if self.checkpoint is not None:
            check_model(self.model, self.checkpoint.family, self.checkpoint.hparams)
        text, allowed = self.config_text(), self.config.allow_changes
        before = runs.saved_config(self.resumed, self.checkpoint)
        moved = self.checkpoint is not None and not self.checkpoint.ended  # compares its images when it goes on
        if changed := runs.check_unchanged(before, text, allowed=allowed, moved=moved):
            rank_zero_info(f"Resumes with other options: {changed}")
        validates = self.datamodule.validation > 0 and options.limit_val_batches != 0
        choices.check_monitored(self.config.monitor, self.model.metrics, validates=validates)
        saves = options.enable_checkpointing is not False
        best = runs.best_so_far(self.checkpoint, self.resumed, allowed=allowed) if validates and saves else None
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
        self.opened.enter_context(self.run_folder.opened(best))
        mine = self.run_folder.callbacks(
            validation=validates,
            checkpoints=saves,
            minutes=self.config.checkpoint_minutes,
            monitor=self.config.monitor,
            logs=(logs := options.logger is not False),
        )
        more = list_of(None if options.logger is True else options.logger)
        return super().instantiate_trainer(
            logger=runs.loggers(self.run_folder.folder, more) if logs else False,  # else no metrics.csv
            callbacks=[*users, *([runs.UseChanges()] if changed else []), runs.StopAtSignal(), *mine],
            default_root_dir=self.run_folder.folder,  # where Lightning looks for, and leaves, SLURM's checkpoints
            plugins=runs.with_whole_checkpoints([*list_of(options.plugins), *self.plugins]),
            strategy=self.strategy or options.strategy,
            **kwargs,
        )

    def _new_folder(self) -> Path:
        model = name_of(type(self.model).__name__, self.model.hparams)
        parent = self.config.trainer.default_root_dir or "runs"
        return runs.new_folder(self.config.run, expanded(parent), model, self.datamodule.dataset)

    def config_text(self) -> str:
        """Return the config in YAML with which `fit --config` repeats the run in a new folder.

        Raises ValueError as `check_text` does.
        """
        config = self.config.clone()
        config.run = config.ckpt_path = None
        config.allow_changes = False
        text = f"{runs.HEADER}{self.parser.dump(config, skip_unset=False)}"
        check_text(text)
        return text

    def run(self) -> None:
        """Run the command."""
        names = signature(getattr(Trainer, self.command)).parameters.keys() - GIVEN - {"self"}
        options = {name: self.config_init[name] for name in names}
        method = {"fit": self._fit, "predict": self._predict}.get(self.command, getattr(self.trainer, self.command))
        method(model=self.model, datamodule=self.datamodule, **options)

    def _fit(self, **options: Any) -> None:
        """Train unless the run is complete; then test the best checkpoint unless --test=false, and print a table."""
        if self.run_folder is not None and self.run_folder.complete(test=self.config.test):
            self.run_folder.report_complete()
            return
        self.trainer.fit(**options)
        if self.run_folder is None or self.trainer.interrupted:
            return
        summary = self.run_folder.finish(self.trainer, self.model, self.datamodule, test=self.config.test)
        if self.trainer.is_global_zero:
            runs.print_summary(summary, self.run_folder.folder)

    def _predict(self, **options: Any) -> None:
        """Write `predictions-<dataset>.csv` beside the checkpoint: a line for each test image, in order."""
        folder = self.checkpoint.path.parent if self.checkpoint else Path()
        file_to_write(str(folder / "predictions.csv"), ".csv")  # raises now, rather than after all the work
        batches = in_order(self.trainer.predict(**options) or [])  # on every process
        if self.trainer.is_global_zero:
            runs.write_predictions(folder, batches, self.datamodule)


def main(
    args: Sequence[str],
    callbacks: Sequence[Callback] = (),
    strategy: Strategy | None = None,
    plugins: Sequence[Any] = (),
) -> int:
    """Run a command and return 0. If it raises an error, a run folder without content is removed first.

    `args` begins with the name of the command; the other parameters are those of `ZooCLI`.
    """
    quiet()
    with ExitStack() as opened, runs.determinism_restored(), runs.stopped_by_signals(), choices.told_in_one_line():
        ZooCLI(args[0], args[1:], opened, callbacks=callbacks, strategy=strategy, plugins=plugins).run()
    return 0


def build(args: Sequence[str]) -> ZooCLI:
    """Build what `fit` with these arguments would train. No file is written, and torch keeps its own settings."""
    quiet()
    with runs.determinism_restored(), choices.told_in_one_line():
        return ZooCLI("fit", args)
