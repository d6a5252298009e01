"""The hyperparameters of a model: the arguments of its own constructors, however often they are saved."""

import inspect
from collections.abc import Sequence
from types import FrameType
from typing import Any

from lightning import LightningModule
from lightning.pytorch.utilities.parsing import get_init_args

from cvcc_zoo.internals.lightning import arguments_given


class SavesArguments(LightningModule):
    """A module whose hyperparameters are its own, also if it is built in the constructor of another module."""

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
        kept = dict(self.hparams)
        with arguments_given(arguments_of(self, frame or inspect.currentframe())):
            super().save_hyperparameters(*args, ignore=ignore, logger=logger)
        self.hparams.update({name: value for name, value in kept.items() if name in self.hparams})


def arguments_of(model: object, frame: FrameType | None) -> dict[str, Any]:
    """Return the arguments of the constructors of `model` in which a call runs; those of subclasses come first.

    Lightning would also return those of any other module in whose constructor it runs.
    """
    found: dict[str, Any] = {}
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is model:
            found |= get_init_args(frame)
        frame = frame.f_back
    return found
