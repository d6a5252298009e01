"""YAML and flags become objects here, and only here: `fit`, `validate`, `test` and `predict` by LightningCLI."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info

import cvcc_zoo.choices as choices
from cvcc_zoo.checkpoint import Checkpoint, read_checkpoint
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.compatibility import check_model
from cvcc_zoo.data import ImageDataModule, check_test, in_order
from cvcc_zoo.expansion import expand_args, install_yaml, path_of
from cvcc_zoo.models.catalogue import architecture, describe, name_of
from cvcc_zoo.notices import quiet
from cvcc_zoo.parsing import ZooParser, add_own_options, asked_model, list_of
from cvcc_zoo.runs import (
    HEADER,
    MINUTES,
    RunFolder,
    StopAtSignal,
    UseChanges,
    best_so_far,
    check_unchanged,
    folder_to_resume,
    has_ended,
    last_of,
    new_folder,
    print_summary,
    saved_config,
    users_callbacks,
    with_whole_checkpoints,
    write_predictions,
)
from cvcc_zoo.zoo import use_weights

DEFAULT_MODEL = "cnn_small"


class ZooCLI(LightningCLI):
    """LightningCLI with models, optimizers and schedules by name, and a run folder for every training."""

    run_folder: RunFolder | None = None
    checkpoint: Checkpoint | None = None
    resumed: Path | None = None  # the folder of the run that goes on
    more_callbacks: Sequence[Callback] = ()
    strategy: Strategy | None = None
    plugins: Sequence[Any] = ()
    starts = True  # or only builds what the command would run

    def add_arguments_to_parser(self, parser: Any) -> None:
        """What belongs to neither model, data nor trainer."""
        family, options = describe(DEFAULT_MODEL)
        parser.set_defaults({"model": {"class_path": path_of(family), "init_args": options}})
        add_own_options(parser, MINUTES)
        choices.link_options(parser)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Expand names before jsonargparse sees them."""
        choices.check_owned(args)
        self.config = choices.parse(parser, expand_args(choices.owners_first(choices.name_as_option(args))))

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
                self.resumed = folder_to_resume(config.run, [Path(str(file)) for file in config.config or []])
                config.ckpt_path = last_of(self.resumed)
            if config.ckpt_path is not None:
                self.checkpoint = read_checkpoint(config.ckpt_path)
                config.ckpt_path = str(self.checkpoint.path)
            return
        self.checkpoint = checkpoint = read_checkpoint(config.ckpt_path)
        parser = self._parser(command)
        if asked_model(config.model) == asked_model(parser.parse_args([]).model):
            kept = {name: checkpoint.hparams.get(name) for name in ("loss", "patch_whitening")}
            options = {**architecture(checkpoint.hparams), **kept}
            model = {"class_path": path_of(checkpoint.family), "init_args": options}
            self.config = self.parser.parse_object({command: {"model": model}}, self.config)
        self.config[command].ckpt_path = None  # we load it, so that no callback of the training is asked for

    def _set_seed(self) -> None:
        """Settle what was chosen before anything is built."""
        before = saved_config(self.resumed, self.checkpoint) if self.subcommand == "fit" else None
        fresh = self.subcommand != "fit" and self.checkpoint is None
        choices.settle(self.config[self.subcommand], str(self.subcommand), before, fresh=fresh)
        super()._set_seed()

    def after_instantiate_classes(self) -> None:
        """Put weights into the model: those that a training starts from, or of the checkpoint that is evaluated."""
        choices.check_launcher(self.trainer)
        if (weights := self._get(self.config, "weights")) is not None:
            if self.trainer.precision == "64-true":
                self.model.double()  # as Lightning will do, when digits would be lost already
            new = use_weights(self.model, weights, self.datamodule.classes)
            if new and self.subcommand != "fit":
                other = f"{weights} were trained on other classes than those of {self.datamodule.dataset.title}"
                raise ValueError(f"the weights {other}; `cvcc-zoo fit` with them trains a new classifier")
            rank_zero_info(f"Starts from the weights {weights}, with {'a new' if new else 'their'} classifier")
        self.model.allow_other_images = bool(self._get(self.config, "allow_changes", False))
        if self.checkpoint is None:
            return
        self.model.classes = self.checkpoint.classes
        if self.subcommand != "fit":
            self.model.use_whitening(self.checkpoint.hparams["whitening"])
            check_model(self.model, self.checkpoint.family, self.checkpoint.hparams)
            self.model.load_state_dict(self.checkpoint.state)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """`fit` gets a run folder, unless it is a `fast_dev_run`; without a logger it has no metrics.csv."""
        options = self._get(self.config_init, "trainer")
        if self.subcommand != "fit" or not self.starts:
            return super().instantiate_trainer(logger=False, callbacks=self._callbacks(), **kwargs)
        if options.fast_dev_run:
            kwargs["enable_checkpointing"] = bool(options.enable_checkpointing)
            return super().instantiate_trainer(callbacks=self._callbacks(), **kwargs)
        if self._get(self.config, "test"):
            check_test(self.datamodule.dataset)
        if self.checkpoint is not None:
            check_model(self.model, self.checkpoint.family, self.checkpoint.hparams)
        text, allowed = self.config_text(), self._get(self.config, "allow_changes")
        changed = check_unchanged(saved_config(self.resumed, self.checkpoint), text, allowed=allowed)
        if changed:
            rank_zero_info(f"Goes on with other options: {changed}")
        validates = self.datamodule.validation > 0 and options.limit_val_batches != 0
        best = best_so_far(self.checkpoint, self.resumed, allowed=allowed) if validates else None
        ended = has_ended(self.checkpoint, self.resumed, changed)
        self.run_folder = RunFolder(
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
            minutes=self._get(self.config, "checkpoint_minutes"),
            logs=(logs := options.logger is not False),
        )
        more = list_of(None if options.logger is True else options.logger)
        return super().instantiate_trainer(
            logger=[self.run_folder.logger(), *more] if logs else False,
            callbacks=[*self._callbacks(), *([UseChanges()] if changed else []), StopAtSignal(), *mine],
            default_root_dir=self.run_folder.folder,  # where Lightning looks for, and leaves, SLURM's checkpoints
            plugins=with_whole_checkpoints([*list_of(options.plugins), *self.plugins]),
            **kwargs | ({"strategy": self.strategy} if self.strategy else {}),
        )

    def _callbacks(self) -> list[Callback]:
        options = self._get(self.config_init, "trainer")
        return users_callbacks([*list_of(options.callbacks), *self.more_callbacks], options)

    def _new_folder(self) -> Path:
        model = name_of(type(self.model).__name__, self.model.hparams)
        parent = self._get(self.config, "trainer").default_root_dir or "runs"
        name = f"{model}-{self.datamodule.dataset.title}"
        return new_folder(self._get(self.config, "run"), Path(parent).expanduser(), name)

    def config_text(self) -> str:
        """The whole config, so that `fit --config` of it repeats the run in a new folder; else raises ValueError."""
        config = self.config.fit.clone()
        config.run = None
        config.ckpt_path = None
        config.allow_changes = False
        return choices.repeatable(f"{HEADER}{self._parser('fit').dump(config, skip_unset=False)}")

    def _run_subcommand(self, subcommand: str) -> None:
        if self.run_folder is not None and self.run_folder.complete(test=self._get(self.config, "test")):
            self.run_folder.say_that_it_is_complete()
        elif self.starts:
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        """Test the chosen checkpoint, unless it is not wanted, and print one table."""
        if self.trainer.interrupted or self._get(self.config, "trainer").fast_dev_run:
            return
        if self.run_folder is not None:
            test = self._get(self.config, "test")
            summary = self.run_folder.finish(self.trainer, self.model, self.datamodule, test=test)
            if self.trainer.is_global_zero:
                print_summary(summary, self.run_folder.folder)

    def predict(self, model: ImageClassifier, **kwargs: Any) -> None:
        """Write `predictions-<dataset>.csv` beside the checkpoint: a line for each test image, in order."""
        batches = in_order(self.trainer.predict(model, **kwargs) or [])  # on every process
        if self.trainer.is_global_zero:
            write_predictions(self.checkpoint.path.parent if self.checkpoint else Path(), batches, self.datamodule)


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
        with choices.told_in_one_line():
            _start(cli, args)
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
    # Only the parser of this command is built: each takes half a second.
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
