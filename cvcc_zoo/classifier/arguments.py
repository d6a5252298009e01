"""The hyperparameters of a model: the arguments of its own constructors, and a model that is built again from them."""

import inspect
import re
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Self

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.parsing import get_init_args

from cvcc_zoo.internals.lightning import arguments_given
from cvcc_zoo.registry import family_options

OF_WEIGHTS = ("num_classes", "in_channels", "image_size", "whitening")
"""Options of every model that weights fit or do not fit."""


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
        """Return a new model with these hyperparameters.

        A constructor without `**options` is given those that it takes, as in Lightning's `load_from_checkpoint`. Raises
        ValueError if the constructor fixes an option, so that the model would be another one or cannot be built.
        """
        parameters = inspect.signature(cls.__init__).parameters
        open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        given = {name: value for name, value in hparams.items() if open_ended or name in parameters}
        try:
            model = cls(**given)
        except TypeError as error:
            if found := re.search(r"multiple values for (?:keyword )?argument '(\w+)'", str(error)):
                raise cls._fixes(found[1], hparams) from error
            raise
        for name in hparams.keys() - given.keys() & {*OF_WEIGHTS}:
            if model.hparams[name] != hparams[name]:
                raise cls._fixes(name, hparams)
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
