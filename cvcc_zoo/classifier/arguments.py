"""The hyperparameters of a model: the arguments of its own constructors, and a model that is built again from them."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import FrameType
from typing import Any, Self

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.parsing import get_init_args

from cvcc_zoo.internals.lightning import arguments_given
from cvcc_zoo.losses import LOSSES, UnknownLoss, check_loss
from cvcc_zoo.optim import OPTIMIZERS, SCHEDULES, check_lr_scheduler, check_optimizer, plain_spec
from cvcc_zoo.registry import Spec, family_options

OF_WEIGHTS = ("num_classes", "in_channels", "image_size", "whitening")
"""Options of every model that weights fit or do not fit."""
OF_TRAINING: dict[str, tuple[Collection[str], Callable[[Spec], None]]] = {
    "optimizer": (OPTIMIZERS, check_optimizer),
    "lr_scheduler": (SCHEDULES, check_lr_scheduler),
    "loss": (LOSSES, check_loss),
}
"""Options that only a training needs: the names that this version knows, and what raises ValueError for others."""


class FixedOptionError(ValueError):
    """A class gives its base an option that nobody can give to the class."""


class SavesArguments(LightningModule):
    """A module whose hyperparameters are its own, also if it is built in the constructor of another module."""

    _adds_options = False  # whether a constructor gave its base options that are neither its own nor the default

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Save the arguments of the constructors of this object that are running.

        Values that were saved before stay: a subclass may call this again, as Lightning's examples do, after a base
        has turned them into plain data.
        """
        kept, calls = dict(self.hparams), calls_of(self, frame or inspect.currentframe())
        found = {name: value for call in calls for name, value in call.items()}
        with arguments_given(found):
            super().save_hyperparameters(*args, ignore=ignore, logger=logger)
        self.hparams.update({name: value for name, value in kept.items() if name in self.hparams})
        known = family_options(type(self))  # type: ignore[arg-type]
        own = calls[-1] if calls else found
        self._adds_options |= any(n not in own and n in known and found[n] is not known[n].default for n in found)

    @classmethod
    def rebuilt(cls, hparams: Mapping[str, Any]) -> Self:
        """Return a new model with these hyperparameters; those that only a training needs may be unknown here.

        A constructor without `**options` is given those that it takes, as in Lightning's `load_from_checkpoint`. Raises
        ValueError if the constructor fixes an option, so that the model would be another one or cannot be built.
        """
        parameters = inspect.signature(cls.__init__).parameters
        open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        given = {name: value for name, value in hparams.items() if open_ended or name in parameters}
        unknown = unknown_here(given)
        try:
            model = cls(**{name: value for name, value in given.items() if name not in unknown})
        except TypeError as error:
            if found := re.search(r"multiple values for (?:keyword )?argument '(\w+)'", str(error)):
                raise cls._fixes(found[1], hparams) from error
            raise
        for name in hparams.keys() - given.keys() & {*OF_WEIGHTS}:
            if model.hparams[name] != hparams[name]:
                raise cls._fixes(name, hparams)
        model.hparams.update({name: given[name] for name in unknown})
        if "loss" in unknown:
            model.loss = UnknownLoss(unknown["loss"])  # type: ignore[assignment]
        return model

    @classmethod
    def _fixes(cls, name: str, hparams: Mapping[str, Any]) -> FixedOptionError:
        value = repr(hparams.get(name))
        return FixedOptionError(
            f"{cls.__name__} cannot be built with {name}={value}, which a checkpoint or a new classifier needs, "
            f"because its constructor does not take {name}; write `def __init__(self, {name}={value}, **options)`, and "
            f"give it to the base: `super().__init__({name}={name}, **options)`"
        )

    def check_rebuilt(self) -> None:
        """Raise ValueError if no checkpoint of this model could be loaded, because its constructor fixes an option.

        Only a class that adds options for its base may do so; it is built once more, without memory.
        """
        if self._adds_options:
            try:
                with torch.random.fork_rng(devices=[]), torch.device("meta"):
                    self.rebuilt(self.hparams)
            except FixedOptionError:
                raise
            except Exception:  # constructors of users may do anything
                return


def unknown_here(hparams: Mapping[str, Any]) -> dict[str, ValueError]:
    """Return which options of a training this version does not know, each with the error that says so.

    Raises ValueError for what cannot be such an option in any version.
    """
    found = {}
    for name, (known, check) in OF_TRAINING.items():
        if hparams.get(name) is not None:
            spec = plain_spec(name, hparams[name], known)
            try:
                check(spec)
            except ValueError as error:
                found[name] = error
    return found


def calls_of(model: object, frame: FrameType | None) -> list[dict[str, Any]]:
    """Return the arguments of each constructor of `model` that is running, those of subclasses last.

    Lightning would also return those of any other module in whose constructor this one runs.
    """
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is model:
            found.append(get_init_args(frame))
        frame = frame.f_back
    return found
